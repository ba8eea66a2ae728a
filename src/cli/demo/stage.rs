//! Where a demo, a bench or a drill happens: its folder and its peers, all gone at the end, also after Ctrl-C. It never removes a
//! folder that it did not make, and never ends a process that it did not start.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError, Weak};
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::cluster::surroundings::Surroundings;
use crate::cli::cluster::{Closed, ClusterDir, ClusterPeer};
use crate::cli::compose::random_name;
use crate::cli::output::WrongUse;
use crate::cli::progress::{Progress, Report};
use crate::config::cluster::Cluster;

/// Exit code of a process that was interrupted, as shells have it.
const INTERRUPTED: i32 = 130;
/// How long a process that panics waits for what is under way: longer than peers take to stop.
const PANIC_WAIT: Duration = Duration::from_secs(35);
/// How often it looks.
const PANIC_LOOK: Duration = Duration::from_millis(50);

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

/// A signal ends this process, so nothing more is made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this was interrupted")]
pub(in crate::cli) struct Interrupted;

/// How it ends.
struct Ending {
    cluster: ClusterDir,
    made: Mutex<Option<PathBuf>>,
    stays: AtomicBool,
    undo: Mutex<Vec<Undo>>,
    /// Set before the turn is waited for: who waits for it then as well is refused.
    closing: AtomicBool,
    /// Held while something is done to peers or to the machine, and through the whole end: who comes second finds all of it done.
    turn: Mutex<Turn>,
}

/// Whose turn it is, there being one at a time.
#[derive(Default)]
struct Turn {
    ended: bool,
    /// Nothing is started any more for as long as this is here.
    _closed: Option<Closed>,
}

thread_local! {
    /// Whether this thread has the turn: when it panics then, it must not wait for itself.
    static HAS_THE_TURN: Cell<bool> = const { Cell::new(false) };
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
    fn of(cluster: ClusterDir, made: Option<PathBuf>) -> Self {
        Self {
            cluster,
            made: Mutex::new(made),
            stays: AtomicBool::new(false),
            undo: Mutex::default(),
            closing: AtomicBool::new(false),
            turn: Mutex::default(),
        }
    }

    /// Does something that the end must not happen beside, or after which it must come.
    fn act<T>(&self, work: impl FnOnce(&ClusterDir) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let _turn = lock(&self.turn);
        if self.closing.load(Ordering::SeqCst) {
            return Err(Interrupted.into());
        }
        HAS_THE_TURN.set(true);
        let done = work(&self.cluster);
        HAS_THE_TURN.set(false);
        done
    }

    fn end(&self) {
        self.closing.store(true, Ordering::SeqCst);
        let mut turn = lock(&self.turn);
        HAS_THE_TURN.set(true);
        self.end_once(&mut turn);
        HAS_THE_TURN.set(false);
    }

    /// The end of a process that panics and does not unwind. It comes also where somebody does not give up the turn.
    fn end_in_panic(&self) {
        self.closing.store(true, Ordering::SeqCst);
        let mut left = if HAS_THE_TURN.get() { Duration::ZERO } else { PANIC_WAIT };
        while !left.is_zero() {
            if let Ok(mut turn) = self.turn.try_lock() {
                return self.end_once(&mut turn);
            }
            std::thread::sleep(PANIC_LOOK);
            left = left.saturating_sub(PANIC_LOOK);
        }
        self.end_once(&mut Turn::default());
    }

    fn end_once(&self, turn: &mut Turn) {
        if std::mem::replace(&mut turn.ended, true) {
            return;
        }
        let undo: Vec<Undo> = lock(&self.undo).drain(..).rev().collect();
        if self.stays.load(Ordering::SeqCst) {
            undo.into_iter().for_each(|undo| undo());
            return;
        }
        turn._closed = self.cluster.kill_all();
        undo.into_iter().for_each(|undo| undo());
        if let Some(made) = lock(&self.made).as_ref() {
            // An outbox of very many mails takes minutes to remove.
            let _bar = Progress::start(&format!("removing {}", made.display()));
            // What cannot be removed is in the system's folder for temporary files.
            let _ = std::fs::remove_dir_all(made);
        }
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
        let ending = Arc::new(Ending::of(cluster.clone(), made));
        end_when_interrupted(&ending)?;
        Ok(Self { cluster, file, report, ending })
    }

    /// The folder stays at the end, with homes and logs in it.
    pub(in crate::cli) fn keep_folder(&self) {
        lock(&self.ending.made).take();
    }

    /// Does something to the peers or to the machine, all of it before the end begins or none of it.
    ///
    /// # Errors
    /// [`Interrupted`] once the end has begun, and what `work` says.
    pub(in crate::cli) fn act<T>(&self, work: impl FnOnce(&ClusterDir) -> anyhow::Result<T>) -> anyhow::Result<T> {
        self.ending.act(work)
    }

    /// `undo` is done at the end, once the peers are gone if they go; the last one first. What it undoes is made afterwards, by
    /// [`Stage::act`], so that there is no moment in which it is there and nobody knows of it.
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
        // Whoever interrupted this waits for the end alone, and not for what this thread would still say.
        while INTERRUPTING.load(Ordering::SeqCst) {
            std::thread::park();
        }
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
/// Whether a signal is ending them.
static INTERRUPTING: AtomicBool = AtomicBool::new(false);

fn stages() -> Vec<Arc<Ending>> {
    lock(&STAGES).iter().filter_map(Weak::upgrade).collect()
}

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
        INTERRUPTING.store(true, Ordering::SeqCst);
        stages().iter().for_each(|ending| ending.end());
        std::process::exit(INTERRUPTED);
    });
    end_when_panicking();
    Ok(())
}

/// Where a panic does not unwind nothing is dropped: what the stages made is undone before the process is gone.
fn end_when_panicking() {
    if cfg!(panic = "abort") {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            report(panic);
            stages().iter().for_each(|ending| ending.end_in_panic());
        }));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn ending() -> (tempfile::TempDir, Arc<Ending>) {
        let dir = tempfile::tempdir().unwrap();
        let cluster = ClusterDir::at(dir.path(), Path::new("false"), Report::silent()).unwrap();
        (dir, Arc::new(Ending::of(cluster, None)))
    }

    /// What is undone slowly: it says when it begins, and whether it is done.
    fn undone_slowly(ending: &Ending) -> (mpsc::Receiver<()>, Arc<AtomicBool>) {
        let (began, beginning) = mpsc::channel();
        let undone = Arc::new(AtomicBool::new(false));
        let there = undone.clone();
        lock(&ending.undo).push(Box::new(move || {
            began.send(()).unwrap();
            std::thread::sleep(Duration::from_millis(200));
            there.store(true, Ordering::SeqCst);
        }));
        (beginning, undone)
    }

    #[test]
    fn who_ends_a_stage_second_waits_until_everything_is_undone() {
        let (_dir, ending) = ending();
        let (beginning, undone) = undone_slowly(&ending);
        let first = ending.clone();
        let first = std::thread::spawn(move || first.end());
        beginning.recv().unwrap();
        ending.end();
        assert!(undone.load(Ordering::SeqCst));
        first.join().unwrap();
    }

    #[test]
    fn nothing_is_made_to_fail_once_the_end_has_begun_and_what_is_under_way_is_waited_for() {
        let (_dir, ending) = ending();
        let (began, beginning) = mpsc::channel();
        let (done, acting) = (Arc::new(AtomicBool::new(false)), ending.clone());
        let there = done.clone();
        let thread = std::thread::spawn(move || {
            acting.act(|_| {
                began.send(()).unwrap();
                std::thread::sleep(Duration::from_millis(200));
                there.store(true, Ordering::SeqCst);
                Ok(())
            })
        });
        beginning.recv().unwrap();
        ending.end();
        assert!(done.load(Ordering::SeqCst));
        thread.join().unwrap().unwrap();
        let refused = ending.act(|_| Ok("too late"));
        assert!(refused.unwrap_err().is::<Interrupted>());
    }

    #[test]
    fn a_panic_in_the_midst_of_a_turn_does_not_wait_for_itself() {
        let (_dir, ending) = ending();
        let (_beginning, undone) = undone_slowly(&ending);
        let start = tokio::time::Instant::now();
        let acted = ending.act(|_| {
            ending.end_in_panic();
            Ok(())
        });
        acted.unwrap();
        assert!(undone.load(Ordering::SeqCst) && start.elapsed() < PANIC_WAIT);
    }
}
