//! Threads that share the stages of one program.
//!
//! The caller of [`Pool::run`] opens stage after stage; it and the helpers take chunks by one
//! compare-and-swap each. A stage ends when its chunks are done, so a helper that is asleep or
//! preempted between chunks delays no other thread. Helpers spin for a while after the last work
//! that they saw, then park; only waking a parked one is a system call.
//!
//! A caller that waits long for a helper's chunk sleeps between its looks: at a real-time priority,
//! spinning or yielding would keep a helper of ordinary priority off the core for good.

use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{mpsc, Arc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::layout::ThreadMemory;

/// How long a helper looks for work before it parks: longer than any pause within a frame.
const BEFORE_PARKING: Duration = Duration::from_micros(100);

/// How long the caller looks at an unfinished stage before it sleeps, so that it does not keep the
/// helper that it waits for off its core: longer than a chunk takes where the helper has a core of
/// its own.
const BEFORE_SLEEPING: Duration = Duration::from_micros(500);

/// How long the caller sleeps between looks then.
const NAP: Duration = Duration::from_micros(50);

/// No chunk left: also the state before the first stage.
const CLOSED: u64 = 0xffff;

/// A wait that spins at first. By the clock: processors differ tenfold in how long one look takes.
struct Spin {
    limit: Duration,
    looks: u32,
    since: Option<Instant>,
}

impl Spin {
    /// Looks between two readings of the clock, which would otherwise be most of the work.
    const LOOKS: u32 = 64;

    fn new(limit: Duration) -> Self {
        Self { limit, looks: 0, since: None }
    }

    /// Pauses the processor for a moment; false where the limit has passed.
    fn again(&mut self) -> bool {
        std::hint::spin_loop();
        self.looks += 1;
        !self.looks.is_multiple_of(Self::LOOKS) || self.since.get_or_insert_with(Instant::now).elapsed() < self.limit
    }
}

/// What a pool runs: stages one after the other, each in chunks that threads may run at the same
/// time.
pub trait Stages: Send + Sync + 'static {
    fn stages(&self) -> usize;

    /// Parts of a stage, fewer than 65535.
    fn chunks(&self, stage: usize) -> usize;

    /// Runs one chunk. `before` is the chunk of the same run of this stage that this thread ran last: what that left in
    /// the scratch is there still.
    ///
    /// # Safety
    /// `memory` must be large enough for the program, its scratch this thread's own, and no chunk
    /// of another stage may run at the same time. `before` must be as told.
    unsafe fn run(&self, memory: &ThreadMemory, stage: usize, chunk: usize, before: Option<usize>);
}

struct SharedProgram<P> {
    program: P,
    memory: Memories,
    /// The open stage: generation (32 bits), stage (16), next chunk (16). The generation tells
    /// apart two openings of one stage.
    state: AtomicU64,
    /// Chunks of the open stage that are done.
    done: AtomicUsize,
    parked: Vec<AtomicBool>,
    /// Whether a chunk of the open stage has panicked, on any thread.
    panicked: AtomicBool,
    stop: AtomicBool,
}

/// The opening of a stage, and the chunk of it that a thread took last.
type LastTaken = Option<(u64, usize)>;

/// The memory of each thread, the caller's first.
struct Memories(Vec<ThreadMemory>);

// SAFETY: the pointers are to buffers that the engine owns for as long as the pool. Threads write
// to disjoint places within a stage (chunks are disjoint, scratch is each thread's own), and stages
// are ordered by `done` (release) and `state` (acquire).
unsafe impl Send for Memories {}
// SAFETY: as above.
unsafe impl Sync for Memories {}

/// A program with the threads that run it.
pub struct Pool<P> {
    shared: Arc<SharedProgram<P>>,
    helpers: Vec<JoinHandle<()>>,
}

impl<P: Stages> Pool<P> {
    /// Starts a helper for every memory but the first, which is the caller's.
    ///
    /// # Safety
    /// Each memory must be large enough for the program, with its own scratch, and valid for as
    /// long as the pool lives.
    pub unsafe fn new(program: P, memory: Vec<ThreadMemory>) -> std::io::Result<Self> {
        let stages = program.stages();
        assert!(stages < 1 << 16 && (0..stages).all(|s| (program.chunks(s) as u64) < CLOSED));
        let parked = memory.iter().skip(1).map(|_| AtomicBool::new(false)).collect();
        let shared = Arc::new(SharedProgram {
            program,
            memory: Memories(memory),
            state: AtomicU64::new(CLOSED),
            done: AtomicUsize::new(0),
            parked,
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let mut pool = Self { shared, helpers: vec![] };
        let (started, all_started) = mpsc::channel::<()>();
        for i in 0..pool.shared.parked.len() {
            let (shared, started) = (Arc::clone(&pool.shared), started.clone());
            let thread = thread::Builder::new().name(format!("engine-{}", i + 1));
            let help = move || {
                drop(started);
                shared.help(i);
            };
            pool.helpers.push(thread.spawn(help)?);
        }
        // A thread gives itself its name. Who looks for the helpers by theirs, to give them a
        // priority, would miss one that has not run yet.
        drop(started);
        while all_started.recv().is_ok() {}
        Ok(pool)
    }

    pub fn program(&self) -> &P {
        &self.shared.program
    }

    /// How many threads share the work, the caller of [`run`](Self::run) included.
    pub fn threads(&self) -> usize {
        self.helpers.len() + 1
    }

    /// Pins the calling thread, which is to call [`run`](Self::run), and the helpers to one CPU
    /// each: the first to the first, and from the start again where there are more threads than
    /// CPUs.
    ///
    /// # Errors
    /// When a CPU does not exist, or the system does not let this process choose.
    #[cfg(target_os = "linux")]
    pub fn pin(&self, cpus: &[usize]) -> std::io::Result<()> {
        use std::os::unix::thread::JoinHandleExt;
        // SAFETY: the calling thread's own handle.
        let caller = unsafe { libc::pthread_self() };
        let threads = std::iter::once(caller).chain(self.helpers.iter().map(|helper| helper.as_pthread_t()));
        for (thread, &cpu) in threads.zip(cpus.iter().cycle()) {
            pin(thread, cpu)?;
        }
        Ok(())
    }

    /// Gives each helper a CPU of its own among those that the calling thread may use, from the
    /// second on; the caller's thread is left as it is.
    ///
    /// # Errors
    /// When the system does not let this process choose.
    #[cfg(target_os = "linux")]
    pub fn pin_helpers(&self) -> std::io::Result<()> {
        use std::os::unix::thread::JoinHandleExt;
        let allowed = allowed_cpus()?;
        for (helper, &cpu) in self.helpers.iter().zip(allowed.iter().cycle().skip(1)) {
            pin(helper.as_pthread_t(), cpu)?;
        }
        Ok(())
    }

    /// Runs `stages` in order; calls `after` with the index of each when it has ended.
    ///
    /// # Panics
    /// When a chunk does, on whichever thread; the pool can be used again.
    pub fn run(&mut self, stages: Range<usize>, mut after: impl FnMut(usize)) {
        let program = &self.shared.program;
        for i in stages {
            let chunks = program.chunks(i);
            if chunks == 1 || self.helpers.is_empty() {
                for chunk in 0..chunks {
                    // SAFETY: no chunk is open to the helpers; see `Pool::new` for the memory.
                    unsafe { program.run(&self.shared.memory.0[0], i, chunk, chunk.checked_sub(1)) };
                }
            } else {
                self.open(i);
                let mut last = None;
                while self.shared.take(0, &mut last) {}
                self.wait(chunks);
                if self.shared.panicked.swap(false, Relaxed) {
                    panic!("a chunk of stage {i} has panicked; its own message says why");
                }
            }
            after(i);
        }
    }

    fn open(&self, stage: usize) {
        let generation = (self.shared.state.load(Relaxed) >> 32) as u32;
        self.shared.done.store(0, Relaxed);
        // Sequentially consistent, as are a helper's two accesses before it parks: either it sees
        // the stage, or this sees that it is parked.
        self.shared.state.store(u64::from(generation.wrapping_add(1)) << 32 | (stage as u64) << 16, SeqCst);
        for (parked, helper) in self.shared.parked.iter().zip(&self.helpers) {
            if parked.load(SeqCst) && parked.swap(false, SeqCst) {
                helper.thread().unpark();
            }
        }
    }

    fn wait(&self, chunks: usize) {
        let mut spin = Spin::new(BEFORE_SLEEPING);
        let mut spinning = true;
        while self.shared.done.load(Acquire) < chunks {
            spinning = spinning && spin.again();
            if !spinning {
                thread::sleep(NAP);
            }
        }
    }
}

impl<P: Stages> SharedProgram<P> {
    /// Takes and runs one chunk of the open stage; false when none is left. `last` is the thread's own.
    fn take(&self, thread: usize, last: &mut LastTaken) -> bool {
        let mut state = self.state.load(SeqCst);
        loop {
            let (index, chunk) = ((state >> 16 & 0xffff) as usize, (state & 0xffff) as usize);
            if chunk >= self.program.chunks(index) {
                return false;
            }
            match self.state.compare_exchange_weak(state, state + 1, AcqRel, Acquire) {
                Ok(_) => {
                    let opening = state >> 16;
                    let before = last.replace((opening, chunk)).filter(|last| last.0 == opening).map(|last| last.1);
                    // SAFETY: the exchange made this thread the only one with this chunk, of the
                    // only open stage.
                    let run = || unsafe { self.program.run(&self.memory.0[thread], index, chunk, before) };
                    // A panic must not leave the stage open: the caller would wait for ever, or go
                    // on while helpers still work.
                    if panic::catch_unwind(AssertUnwindSafe(run)).is_err() {
                        *last = None;
                        self.panicked.store(true, Relaxed);
                    }
                    self.done.fetch_add(1, Release);
                    return true;
                }
                Err(now) => state = now,
            }
        }
    }

    fn help(&self, helper: usize) {
        let mut spin = Spin::new(BEFORE_PARKING);
        let mut last = None;
        while !self.stop.load(Acquire) {
            if self.take(helper + 1, &mut last) {
                spin = Spin::new(BEFORE_PARKING);
            } else if !spin.again() {
                // Openings are counted modulo 2^32: one of long ago must not be taken for today's.
                last = None;
                self.parked[helper].store(true, SeqCst);
                if !self.stop.load(SeqCst) && !self.take(helper + 1, &mut last) {
                    thread::park();
                }
                self.parked[helper].store(false, SeqCst);
                spin = Spin::new(BEFORE_PARKING);
            }
        }
    }
}

/// Keeps a thread, which must be alive, on one CPU.
#[cfg(target_os = "linux")]
fn pin(thread: libc::pthread_t, cpu: usize) -> std::io::Result<()> {
    if cpu >= libc::CPU_SETSIZE as usize {
        return Err(std::io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: the set is plain bits; `CPU_SET` is given a place within it.
    let status = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::pthread_setaffinity_np(thread, size_of::<libc::cpu_set_t>(), &set)
    };
    match status {
        0 => Ok(()),
        error => Err(std::io::Error::from_raw_os_error(error)),
    }
}

/// The CPUs that the calling thread may use, in order.
#[cfg(target_os = "linux")]
fn allowed_cpus() -> std::io::Result<Vec<usize>> {
    // SAFETY: the set is plain bits, of the size that is told; 0 is the calling thread.
    let (status, set) = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        (libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set), set)
    };
    if status != 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: every CPU asked for has a place in the set.
    Ok((0..libc::CPU_SETSIZE as usize).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect())
}

impl<P> Drop for Pool<P> {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        for helper in self.helpers.drain(..) {
            helper.thread().unpark();
            // A helper does not panic; if it did, the caller could do nothing about it.
            let _ = helper.join();
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    struct Nothing;

    impl Stages for Nothing {
        fn stages(&self) -> usize {
            0
        }

        fn chunks(&self, _: usize) -> usize {
            0
        }

        unsafe fn run(&self, _: &ThreadMemory, _: usize, _: usize, _: Option<usize>) {}
    }

    /// One stage, whose chunks compare what they are told ran before them with what their thread's scratch says.
    struct Recorded {
        runs: Arc<AtomicUsize>,
    }

    impl Stages for Recorded {
        fn stages(&self) -> usize {
            1
        }

        fn chunks(&self, _: usize) -> usize {
            8
        }

        unsafe fn run(&self, memory: &ThreadMemory, _: usize, chunk: usize, before: Option<usize>) {
            let last = memory.scratch.cast::<[u32; 2]>();
            let run = self.runs.load(Relaxed) as u32;
            // SAFETY: the test gives each thread a scratch of that size and alignment.
            let [of_run, of_chunk] = unsafe { std::ptr::replace(last, [run, chunk as u32]) };
            assert_eq!(before, (of_run == run).then_some(of_chunk as usize));
        }
    }

    #[test]
    fn a_chunk_is_told_which_of_the_same_run_its_thread_ran_last() {
        let null = std::ptr::null_mut();
        let mut scratch = vec![[0.0f32; 2]; 3];
        let first = scratch.as_mut_ptr();
        let memory = (0..3).map(|thread| {
            let scratch = first.wrapping_add(thread).cast();
            ThreadMemory { arena: null, scratch, input: null, pixels: null, outputs: null }
        });
        let runs = Arc::new(AtomicUsize::new(0));
        // SAFETY: each scratch is as large as the program asks for, its own, and outlives the pool.
        let mut pool = unsafe { Pool::new(Recorded { runs: Arc::clone(&runs) }, memory.collect()) }.unwrap();
        for _ in 0..300 {
            runs.fetch_add(1, Relaxed);
            pool.run(0..1, |_| ());
        }
        drop(pool);
        drop(scratch);
    }

    #[test]
    fn helpers_have_their_names_as_soon_as_there_is_a_pool() {
        let null = std::ptr::null_mut();
        let memory = || ThreadMemory { arena: null, scratch: null, input: null, pixels: null, outputs: null };
        // SAFETY: a program without stages touches no memory.
        let pool = unsafe { Pool::new(Nothing, (0..4).map(|_| memory()).collect()) }.unwrap();
        let names: Vec<_> = peregrine_core::scheduling::threads().into_iter().map(|(_, name)| name).collect();
        for helper in 1..4 {
            assert!(names.contains(&format!("engine-{helper}")), "{names:?}");
        }
        drop(pool);
    }
}
