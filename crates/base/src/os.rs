//! Calls of the operating system that need `unsafe`, behind safe functions: local time, daemon, process title,
//! the scheduler's turns, fatal signals. What `rustix` or the standard library offers safely isn't here.

use std::ffi::CStr;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A point in time as a clock on the wall shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalTime {
    pub year: i32,
    /// 1 to 12.
    pub month: u8,
    pub day: u8,
    pub hour: u8,
    pub minute: u8,
    pub second: u8,
    /// East of Greenwich, seconds.
    pub offset_s: i32,
}

/// Unix seconds in the zone of `TZ` or `/etc/localtime`.
pub fn local_time(unix_s: i64) -> LocalTime {
    let time: libc::time_t = unix_s;
    // SAFETY: an all-zero `tm` is a valid value of that plain C struct.
    let mut parts: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are valid for the call; the reentrant variant writes only to `parts`.
    let done = unsafe { libc::localtime_r(&time, &mut parts) };
    if done.is_null() {
        // The year doesn't fit: the zeroed parts say 1900, which no log reader mistakes for a time.
        parts.tm_mday = 1;
    }
    let byte = |n: libc::c_int| u8::try_from(n).unwrap_or_default();
    LocalTime {
        year: parts.tm_year.saturating_add(1900),
        month: byte(parts.tm_mon).saturating_add(1),
        day: byte(parts.tm_mday),
        hour: byte(parts.tm_hour),
        minute: byte(parts.tm_min),
        second: byte(parts.tm_sec),
        offset_s: i32::try_from(parts.tm_gmtoff).unwrap_or_default(),
    }
}

/// Which of the two processes this is after [`daemonize`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The one that was started: it should exit now.
    Parent,
    /// The daemon, in a session of its own, its standard streams on `/dev/null`.
    Daemon,
}

/// Splits off a daemon. Fails if other threads run already: they would be missing in the daemon, with whatever
/// locks they held.
pub fn daemonize() -> io::Result<Fate> {
    if std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count) != 1 {
        return Err(io::Error::other("threads are running already"));
    }
    // SAFETY: this is the only thread (checked above), so the child's memory is in a consistent state.
    match unsafe { libc::fork() } {
        -1 => return Err(io::Error::last_os_error()),
        0 => {}
        _ => return Ok(Fate::Parent),
    }
    // SAFETY: no arguments, no memory; it fails only for a process group leader, which a fresh child isn't.
    unsafe { libc::setsid() };
    let null: &CStr = c"/dev/null";
    // SAFETY: `null` is a NUL-terminated string that outlives the call.
    let fd = unsafe { libc::open(null.as_ptr(), libc::O_RDWR) };
    if fd >= 0 {
        for stream in 0..=2 {
            // SAFETY: duplicates a descriptor that is open onto one that nobody owns as a Rust object.
            unsafe { libc::dup2(fd, stream) };
        }
        if fd > 2 {
            // SAFETY: `fd` came from `open` above and isn't used afterwards.
            unsafe { libc::close(fd) };
        }
    }
    Ok(Fate::Daemon)
}

/// The part of the process's memory that `ps` shows as its command line.
#[derive(Debug)]
pub struct TitleArea {
    start: usize,
    /// At least 2.
    len: usize,
}

static TITLE_TAKEN: AtomicBool = AtomicBool::new(false);

impl TitleArea {
    /// Takes over the memory of the arguments and, to have room, of the environment, whose variables move to the heap.
    /// Call once, before other threads start and after the arguments were read: they are overwritten by
    /// [`TitleArea::set`]. None: the kernel doesn't tell where that memory is, or it was taken before.
    pub fn take() -> Option<Self> {
        let only_thread = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count) == 1;
        if !only_thread || TITLE_TAKEN.swap(true, Ordering::AcqRel) {
            return None;
        }
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // The name in parentheses may hold anything; the third field follows its last closing one.
        let (_, rest) = stat.rsplit_once(')')?;
        let field = |number: usize| rest.split_ascii_whitespace().nth(number - 3)?.parse::<usize>().ok();
        let (arg_start, arg_end, env_start, env_end) = (field(48)?, field(49)?, field(50)?, field(51)?);
        let mut end = arg_end;
        if env_start == arg_end && env_end > env_start {
            for (name, value) in std::env::vars_os() {
                // SAFETY: no other thread runs (checked above) that could read the environment meanwhile.
                unsafe { std::env::set_var(name, value) };
            }
            end = env_end;
        }
        let len = end.checked_sub(arg_start)?;
        (arg_start != 0 && len >= 2).then_some(TitleArea { start: arg_start, len })
    }

    /// Shows `title`, cut to the room there is. NUL bytes end it.
    pub fn set(&mut self, title: &[u8]) {
        let title = title.split(|byte| *byte == 0).next().unwrap_or_default();
        let used = title.len().min(self.len - 1);
        let area = std::ptr::with_exposed_provenance_mut::<u8>(self.start);
        // SAFETY: the kernel placed the argument and environment strings at `start..start + len`, writable for the
        // process's whole life. Nothing reads them as Rust objects any more: the environment moved to the heap, the
        // arguments were read before (`take` asks for that), and there is only one `TitleArea`.
        unsafe {
            std::ptr::write_bytes(area, 0, self.len);
            std::ptr::copy_nonoverlapping(title.as_ptr(), area, used);
        }
    }
}

/// Keeps the kernel from giving this process transparent huge pages.
pub fn disable_huge_pages() -> io::Result<()> {
    let (on, unused): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: this option takes plain numbers only.
    match unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, on, unused, unused, unused) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// How long the calling thread's turns on a processor are, asked of the scheduler; `None`: as usual. Who has short turns
/// isn't given more time, but gets it sooner: woken, it takes the processor from a thread with longer turns at once,
/// which would else keep it up to the next tick, 1 to 10 ms. Threads that are started later have the same. Kernels
/// before 6.12 don't know such a wish, and threads with a real-time priority need none.
pub fn set_turns(turns: Option<Duration>) -> io::Result<()> {
    const SIZE: libc::c_uint = size_of::<libc::sched_attr>() as libc::c_uint;
    // SAFETY: an all-zero `sched_attr` is a valid value of that plain C struct.
    let mut wish: libc::sched_attr = unsafe { std::mem::zeroed() };
    // SAFETY: 0 is the calling thread; the kernel writes at most `SIZE` bytes, which `wish` has.
    if unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut wish, SIZE, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let policy = libc::c_int::try_from(wish.sched_policy).unwrap_or(-1);
    if policy != libc::SCHED_OTHER && policy != libc::SCHED_BATCH {
        return Ok(());
    }
    wish.size = SIZE;
    wish.sched_runtime = turns.map_or(0, |turns| u64::try_from(turns.as_nanos()).unwrap_or(u64::MAX));
    // SAFETY: 0 is the calling thread; `wish` is initialized, says its own size, and is only read.
    match unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const wish, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A signal that ends the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FatalSignal {
    pub number: i32,
    /// The kernel's reason, `si_code`.
    pub code: i32,
    /// The address whose access failed, where that is what happened.
    pub address: usize,
    /// The process that sent it, where one did.
    pub sender: i32,
}

type FatalHandler = Box<dyn Fn(FatalSignal) + Send + Sync>;

static FATAL_HANDLER: OnceLock<FatalHandler> = OnceLock::new();
static DYING: AtomicBool = AtomicBool::new(false);

/// What a hung handler gets before the process ends anyway, seconds.
const DEATH_GRACE_S: libc::c_uint = 20;

/// Calls `handler` on the faulting thread's own stack before the process dies of SIGSEGV, SIGBUS, SIGFPE, SIGILL or
/// SIGABRT. It runs in a process that is broken already: it may hang (then an alarm ends it) or crash again (which
/// ends it at once), but what it managed to write is worth having. Only the first handler counts.
pub fn on_fatal_signal(handler: impl Fn(FatalSignal) + Send + Sync + 'static) -> io::Result<()> {
    if FATAL_HANDLER.set(Box::new(handler)).is_err() {
        return Ok(());
    }
    for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGABRT] {
        // SAFETY: an all-zero `sigaction` is a valid value: no handler, no flags, an empty mask.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = handle_fatal as extern "C" fn(_, _, _) as libc::sighandler_t;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESETHAND | libc::SA_NODEFER;
        // SAFETY: `action` is initialized and its handler has the signature that SA_SIGINFO asks for.
        if unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

extern "C" fn handle_fatal(number: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    if DYING.swap(true, Ordering::AcqRel) {
        // Another thread is writing the report; its end is the process's.
        std::thread::sleep(std::time::Duration::from_secs(u64::from(DEATH_GRACE_S)));
    }
    // SAFETY: both calls take plain numbers; the alarm's default action ends the process.
    unsafe {
        libc::signal(libc::SIGALRM, libc::SIG_DFL);
        libc::alarm(DEATH_GRACE_S);
    }
    // SAFETY: with SA_SIGINFO the kernel passes a valid `siginfo_t`; each field is read only for signals that set it.
    let signal = unsafe {
        let info = &*info;
        let sent = info.si_code <= 0;
        FatalSignal {
            number,
            code: info.si_code,
            address: if sent { 0 } else { info.si_addr() as usize },
            sender: if sent { info.si_pid() } else { 0 },
        }
    };
    if let Some(handler) = FATAL_HANDLER.get() {
        handler(signal);
    }
    die_of(number);
}

/// Ends the process as if nobody had handled the signal.
pub fn die_of(signal: i32) -> ! {
    // SAFETY: plain numbers; the default action is in place when the signal is raised.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
    std::process::abort()
}

/// Dies of SIGSEGV, with the report that a real fault would give (DEBUG SEGFAULT).
pub fn segfault() -> ! {
    // SAFETY: sends a signal to this very thread; nothing is read.
    unsafe { libc::raise(libc::SIGSEGV) };
    // Only if somebody ignores the signal.
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_far_and_near() {
        let time = local_time(1_795_448_725);
        assert_eq!((time.year, time.month), (2026, 11));
        assert!(time.day == 23 || time.day == 24, "{time:?}");
        assert_eq!(local_time(0).year.clamp(1969, 1970), local_time(0).year);
        // A year that no `int` holds: no panic, a harmless value.
        let _ = local_time(i64::MAX);
    }

    #[test]
    fn turns_are_a_wish_of_the_thread_and_can_be_given_back() {
        // Where it is refused (a sandbox), that is an error and nothing else.
        for turns in [Some(Duration::from_micros(100)), None] {
            if let Err(error) = set_turns(turns) {
                assert!(error.raw_os_error().is_some(), "{error}");
            }
        }
    }

    #[test]
    fn a_process_with_threads_makes_no_daemon_and_keeps_its_title() {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || stopped.recv());
        assert!(daemonize().is_err());
        assert!(TitleArea::take().is_none());
        drop(stop);
        assert!(thread.join().unwrap().is_err());
    }
}
