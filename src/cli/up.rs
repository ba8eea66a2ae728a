//! `roost up`: runs a peer in the foreground until SIGTERM, SIGINT or a command stops it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::init::settle_ports;
use crate::actors::peer::Peer;
use crate::clock::Clock;
use crate::config::{Config, place_of};
use crate::console::control;
use crate::console::login::ConsoleToken;
use crate::console::web::WebPages;
use crate::mail::port::{ImapPort, SmtpPort};
use crate::mail::{imap, smtp};
use crate::net::console_server;
use crate::store::home::Home;

/// Runs the peer of the home at `path` until it is stopped. `detached` makes it the leader of a session of its own: what
/// `roost cluster` starts must outlive its terminal.
///
/// # Errors
/// When the peer cannot start: no home, home in use, a port taken, a damaged journal or config.
pub fn run(path: &Path, detached: bool) -> Result<()> {
    start_log();
    abort_on_panic();
    if detached {
        // Fails only for a process that leads a group already, which then needs no session to be left alone.
        let _ = nix::unistd::setsid();
    }
    let home = Home::at(path).initialised()?;
    let mut config = Config::load(&home.config_file())?;
    settle_ports(&home, &mut config)?;
    let system = actix::System::with_tokio_rt(|| {
        // Only a machine without threads or timers fails here, and there is nothing to fall back to.
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap_or_else(|e| panic!("the runtime does not start: {e}"))
    });
    system.block_on(serve(home, config))
}

/// Logs go to standard error; `ROOST_LOG` filters them (`ROOST_LOG=roost=debug`).
fn start_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("ROOST_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn,roost=info"));
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    // Standard error may be a file on a full disk. Saying so there, as is the default, would end the process.
    let log = log.log_internal_errors(false);
    // Only a second call in one process fails, and then the first one's log is there.
    let _ = log.try_init();
}

/// A panic anywhere ends the process, which restarts from its disk: no actor goes on beside a broken one.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}

/// Serves a home on the current actix system until it is stopped. [`run`] is the program's way in; tests with several peers in
/// one process come here.
///
/// # Errors
/// As [`run`].
pub async fn serve(home: Home, config: Config) -> Result<()> {
    // A file that grows over the process's limit is then an error of the write, answered with 452, and not the end.
    let mut too_large = signal(SignalKind::from_raw(nix::libc::SIGXFSZ))?;
    tokio::spawn(async move { while too_large.recv().await.is_some() {} });
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let peer = Arc::new(Peer::start(home, config, Clock::system()).await?);
    let (stop, mut stopped) = watch::channel(false);

    let smtp_listener = bind("SMTP", peer.ports.smtp, &peer, ("mail", "smtp_port")).await?;
    let imap_listener = bind("IMAP", peer.ports.imap, &peer, ("mail", "imap_port")).await?;
    let smtp_config = smtp::SmtpConfig::new(peer.clock.clone());
    let smtp = tokio::spawn(smtp::serve(smtp_listener, SmtpPort::new(peer.clone()), smtp_config, stop.subscribe()));
    let imap = tokio::spawn(imap::serve(
        imap_listener,
        ImapPort::new(peer.clone()),
        imap::ImapConfig::default(),
        stop.subscribe(),
    ));
    if let Some(addr) = peer.ports.console {
        let listener = bind("the console", addr, &peer, ("console", "console_port")).await?;
        let home = peer.home.clone();
        let token = tokio::task::spawn_blocking(move || ConsoleToken::of(&home)).await??;
        let pages = Arc::new(WebPages::new(peer.clone(), token, addr.port()));
        tokio::spawn(console_server::serve(listener, pages, stop.subscribe()));
    }
    let socket = peer.home.control_socket();
    let control = control::listen(&socket).with_context(|| format!("the control socket {}", socket.display()))?;
    let control = tokio::spawn(control::serve(control, peer.clone(), stop.clone()));
    tracing::info!(address = %peer.config.address, peer_id = %peer.identity.peer_id(), smtp = %peer.ports.smtp,
        imap = %peer.ports.imap, https = %peer.ports.https, libp2p = %peer.ports.libp2p, "this peer is up");

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = stopped.changed() => {}
    }
    tracing::info!("this peer stops");
    // The servers take no more and finish what is under way; then the brains write their clean stop.
    let _ = stop.send(true);
    // Each has a grace of its own, after which it cuts what is left: IMAP says BYE, SMTP ends the mail that is coming in.
    let _ = tokio::join!(smtp, imap);
    control.abort();
    peer.stop().await;
    if let Err(error) = std::fs::remove_file(&socket) {
        tracing::debug!(%error, "the control socket stays");
    }
    actix::System::current().stop();
    Ok(())
}

/// Listens; `key` is where the config says where.
async fn bind(what: &str, addr: SocketAddr, peer: &Peer, key: (&str, &str)) -> Result<TcpListener> {
    let place = || place_of(&peer.home.config_file(), key.0, key.1);
    TcpListener::bind(addr)
        .await
        .with_context(|| format!("{what} cannot listen on {addr}; stop what has the port, or change {}", place()))
}
