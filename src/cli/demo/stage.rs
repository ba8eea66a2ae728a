//! Where a demo, a bench or a drill happens: its folder and its peers, all gone at the end, also after Ctrl-C. It never removes a
//! folder that it did not make, and never ends a process that it did not start.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError, Weak};

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::cluster::surroundings::Surroundings;
use crate::cli::cluster::{ClusterDir, ClusterPeer};
use crate::cli::compose::random_name;
use crate::cli::output::WrongUse;
use crate::cli::progress::{Progress, Report};
use crate::config::cluster::Cluster;

/// Exit code of a process that was interrupted, as shells have it.
const INTERRUPTED: i32 = 130;

/// The folder and its peers. Dropped, the peers are ended, and the folder goes if this made it.
#[derive(Debug)]
pub(in crate::cli) struct Stage {
    /// The peers.
    pub(in crate::cli) cluster: ClusterDir,
    /// What the cluster is made of.
    pub(in crate::cli) file: Cluster,
    /// Who is told.
    pub(in crate::cli) report: Report,
    ending: Arc<Ending>,
}

/// What is undone at the end besides.
type Undo = Box<dyn FnOnce() + Send>;

/// How it ends.
struct Ending {
    cluster: ClusterDir,
    made: Mutex<Option<PathBuf>>,
    stays: AtomicBool,
    undo: Mutex<Vec<Undo>>,
}

impl std::fmt::Debug for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ending({:?}, stays: {:?})", self.made, self.stays)
    }
}

/// What is left whole by a thread that died is used all the same: things must end.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ending {
    fn end(&self) {
        // Taken out first: none of it is done twice, and nothing is held while it is done.
        let undo: Vec<Undo> = lock(&self.undo).drain(..).rev().collect();
        if self.stays.load(Ordering::SeqCst) {
            undo.into_iter().for_each(|undo| undo());
            return;
        }
        let closed = self.cluster.kill_all();
        undo.into_iter().for_each(|undo| undo());
        if let Some(made) = lock(&self.made).as_ref() {
            // An outbox of very many mails takes minutes to remove.
            let _bar = Progress::start(&format!("removing {}", made.display()));
            // What cannot be removed is in the system's folder for temporary files.
            let _ = std::fs::remove_dir_all(made);
        }
        drop(closed);
    }
}

impl Stage {
    /// In `home`, or in a new folder for temporary files that is named for `what` happens.
    pub(in crate::cli) fn new(what: &str, home: Option<&Path>, file: Cluster) -> anyhow::Result<Self> {
        Self::within(what, home, file, None)
    }

    /// The same, in surroundings of their own.
    pub(in crate::cli) fn within(
        what: &str,
        home: Option<&Path>,
        file: Cluster,
        surroundings: Option<Arc<dyn Surroundings>>,
    ) -> anyhow::Result<Self> {
        let report = Report::to_people();
        let fresh = std::env::temp_dir().join(format!("roost-{what}-{}", &random_name()?[..8]));
        let program = std::env::current_exe()?;
        home.map_or(Ok(()), |home| is_free(home, &program, report))?;
        let cluster = ClusterDir::make(home.unwrap_or(&fresh), &program, report)?;
        let cluster = match surroundings {
            Some(surroundings) => cluster.within(surroundings),
            None => cluster,
        };
        let made = home.is_none().then_some(fresh);
        Self::with(cluster, file, report, made)
    }

    /// A cluster that runs already and goes on afterwards.
    pub(in crate::cli) fn of_running(cluster: ClusterDir, file: Cluster, report: Report) -> anyhow::Result<Self> {
        let mut stage = Self::with(cluster, file, report, None)?;
        stage.leave();
        Ok(stage)
    }

    fn with(cluster: ClusterDir, file: Cluster, report: Report, made: Option<PathBuf>) -> anyhow::Result<Self> {
        let (stays, undo) = (AtomicBool::new(false), Mutex::default());
        let ending = Arc::new(Ending { cluster: cluster.clone(), made: Mutex::new(made), stays, undo });
        end_when_interrupted(&ending)?;
        Ok(Self { cluster, file, report, ending })
    }

    /// The folder stays at the end, with homes and logs in it.
    pub(in crate::cli) fn keep_folder(&self) {
        lock(&self.ending.made).take();
    }

    /// `undo` is done at the end, once the peers are gone if they go; the last one first.
    pub(in crate::cli) fn at_end(&self, undo: impl FnOnce() + Send + 'static) {
        lock(&self.ending.undo).push(Box::new(undo));
    }

    /// The peer called `name`, as it is now.
    pub(in crate::cli) fn peer(&self, name: &str) -> anyhow::Result<ClusterPeer> {
        let address = self.cluster.find(name)?;
        let found = self.cluster.status()?.peers.into_iter().find(|peer| peer.address == address);
        found.with_context(|| format!("{address} is gone"))
    }

    /// Lets everything go on after the demo.
    pub(in crate::cli) fn leave(&mut self) {
        self.ending.stays.store(true, Ordering::SeqCst);
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.ending.end();
    }
}

/// Looks whether a cluster runs in `home`: it would be ended with the demo.
fn is_free(home: &Path, program: &Path, report: Report) -> anyhow::Result<()> {
    if !home.exists() {
        return Ok(());
    }
    let running = ClusterDir::at(home, program, report)?.who_runs()?;
    if running.is_empty() {
        return Ok(());
    }
    let home = home.display();
    let why = format!("{} peers run in {home}; roost cluster down --home {home} first", running.len());
    Err(WrongUse { why }.into())
}

/// The stages that there are: one signal ends them all.
static STAGES: Mutex<Vec<Weak<Ending>>> = Mutex::new(Vec::new());
static WAITING: Once = Once::new();

fn end_when_interrupted(ending: &Arc<Ending>) -> anyhow::Result<()> {
    lock(&STAGES).push(Arc::downgrade(ending));
    let mut waiting = Ok(());
    WAITING.call_once(|| waiting = wait_for_signals());
    waiting
}

fn wait_for_signals() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let entered = runtime.enter();
    let mut signals = Vec::new();
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        signals.push(signal(kind)?);
    }
    drop(entered);
    std::thread::spawn(move || {
        runtime.block_on(async {
            let waiting = signals.iter_mut().map(|signal| Box::pin(signal.recv()));
            futures::future::select_all(waiting).await;
        });
        let stages: Vec<Arc<Ending>> = lock(&STAGES).iter().filter_map(Weak::upgrade).collect();
        stages.iter().for_each(|ending| ending.end());
        std::process::exit(INTERRUPTED);
    });
    Ok(())
}
