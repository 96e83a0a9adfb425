//! What this process uses of the machine, as the OS and the allocator tell: CPU time, resident memory, total memory.

/// CPU time in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTime {
    pub user_us: u64,
    pub system_us: u64,
}

/// Whose CPU time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    Process,
    /// Ended children that were waited for.
    Children,
    /// The calling thread.
    Thread,
}

/// CPU time used so far; zeros where the OS doesn't tell.
pub fn cpu_time(whose: Whose) -> CpuTime {
    let who = match whose {
        Whose::Process => libc::RUSAGE_SELF,
        Whose::Children => libc::RUSAGE_CHILDREN,
        #[cfg(target_os = "linux")]
        Whose::Thread => libc::RUSAGE_THREAD,
        #[cfg(not(target_os = "linux"))]
        Whose::Thread => libc::RUSAGE_SELF,
    };
    // SAFETY: an all-zero `rusage` is a valid value of that plain C struct.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is valid for the call, which writes one `rusage`.
    if unsafe { libc::getrusage(who, &mut usage) } != 0 {
        return CpuTime::default();
    }
    let us = |time: libc::timeval| {
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        seconds.saturating_mul(1_000_000).saturating_add(u64::try_from(time.tv_usec).unwrap_or(0))
    };
    CpuTime { user_us: us(usage.ru_utime), system_us: us(usage.ru_stime) }
}

fn system_value(name: libc::c_int) -> u64 {
    // SAFETY: sysconf only reads; an unknown name gives -1.
    u64::try_from(unsafe { libc::sysconf(name) }).unwrap_or(0)
}

/// The machine's memory in bytes; 0 where the OS doesn't tell.
pub fn total_memory() -> u64 {
    system_value(libc::_SC_PHYS_PAGES).saturating_mul(system_value(libc::_SC_PAGESIZE))
}

/// The process's resident memory in bytes; 0 where the OS doesn't tell.
pub fn resident_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    pages.saturating_mul(system_value(libc::_SC_PAGESIZE))
}

/// `Linux 6.1.0 x86_64`: the OS, its release and the processor's kind.
pub fn system_name() -> String {
    let line = |path| std::fs::read_to_string(path).unwrap_or_default().trim().to_string();
    let name = line("/proc/sys/kernel/ostype");
    let name = if name.is_empty() { std::env::consts::OS.to_string() } else { name };
    format!("{name} {} {}", line("/proc/sys/kernel/osrelease"), std::env::consts::ARCH)
}

/// The allocator's own figures, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AllocatorStats {
    pub allocated: u64,
    /// In pages that hold allocations.
    pub active: u64,
    /// Mapped and not given back.
    pub resident: u64,
    /// Given back in a way that costs nothing to take again.
    pub muzzy: u64,
}

/// The allocator's name as INFO shows it.
pub fn allocator_name() -> &'static str {
    if cfg!(feature = "jemalloc") { "jemalloc-5.3.0" } else { "libc" }
}

/// jemalloc's figures, as of now; `None` without jemalloc, or where it is built without statistics.
#[cfg(feature = "jemalloc")]
pub fn allocator_stats() -> Option<AllocatorStats> {
    let epoch: u64 = 1;
    // SAFETY: "epoch" takes a u64 of the given length; writing it refreshes the figures. Nothing is read back.
    let refreshed = unsafe {
        tikv_jemalloc_sys::mallctl(
            c"epoch".as_ptr(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            (&raw const epoch).cast_mut().cast(),
            size_of::<u64>(),
        )
    };
    if refreshed != 0 {
        return None;
    }
    Some(AllocatorStats {
        allocated: size_figure(c"stats.allocated")?,
        active: size_figure(c"stats.active")?,
        resident: size_figure(c"stats.resident")?,
        // MALLCTL_ARENAS_ALL is 4096.
        muzzy: size_figure(c"stats.arenas.4096.pmuzzy")
            .unwrap_or(0)
            .saturating_mul(system_value(libc::_SC_PAGESIZE)),
    })
}

/// Any of the allocator's figures by its name; `None` where there is none of that name, or it isn't a number.
pub fn allocator_figure(name: &[u8]) -> Option<u64> {
    let name = std::ffi::CString::new(name).ok()?;
    #[cfg(feature = "jemalloc")]
    return size_figure(&name);
    #[cfg(not(feature = "jemalloc"))]
    return None.filter(|_: &u64| name.is_empty());
}

/// Whether threads of the allocator's own give freed pages back to the OS.
pub fn set_allocator_threads(on: bool) {
    #[cfg(feature = "jemalloc")]
    // SAFETY: "background_thread" takes a bool of the given length; nothing is read back.
    unsafe {
        tikv_jemalloc_sys::mallctl(
            c"background_thread".as_ptr(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            (&raw const on).cast_mut().cast(),
            size_of::<bool>(),
        );
    }
    #[cfg(not(feature = "jemalloc"))]
    let _ = on;
}

/// jemalloc's figures; there is none here.
#[cfg(not(feature = "jemalloc"))]
pub fn allocator_stats() -> Option<AllocatorStats> {
    None
}

#[cfg(feature = "jemalloc")]
fn size_figure(name: &std::ffi::CStr) -> Option<u64> {
    let (mut value, mut length) = (0usize, size_of::<usize>());
    // SAFETY: the named figures are of type size_t; both pointers are valid for the call, `length` tells the room.
    let failed = unsafe {
        tikv_jemalloc_sys::mallctl(
            name.as_ptr(),
            (&raw mut value).cast(),
            &raw mut length,
            std::ptr::null_mut(),
            0,
        )
    };
    (failed == 0).then_some(value as u64)
}

/// Has the allocator give its unused pages back to the OS.
pub fn purge_allocator() {
    #[cfg(feature = "jemalloc")]
    // SAFETY: the control takes and gives nothing; 4096 means all arenas.
    unsafe {
        tikv_jemalloc_sys::mallctl(
            c"arena.4096.purge".as_ptr(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            0,
        );
    }
}

/// The allocator's report as text; `None` where it has none.
#[cfg(feature = "jemalloc")]
pub fn allocator_report() -> Option<String> {
    /// Appends a piece of the report to the `Vec<u8>` behind `out`.
    unsafe extern "C" fn append(out: *mut libc::c_void, piece: *const libc::c_char) {
        // SAFETY: `out` is the vector handed to malloc_stats_print below, which is alive and used by nobody else;
        // `piece` is a C string of jemalloc's.
        unsafe {
            let out = &mut *out.cast::<Vec<u8>>();
            out.extend_from_slice(std::ffi::CStr::from_ptr(piece).to_bytes());
        }
    }
    let mut out: Vec<u8> = Vec::new();
    // SAFETY: the callback fits its argument, and both live through the call.
    unsafe {
        tikv_jemalloc_sys::malloc_stats_print(Some(append), (&raw mut out).cast(), std::ptr::null());
    }
    Some(String::from_utf8_lossy(&out).into_owned())
}

/// The allocator's report; there is none here.
#[cfg(not(feature = "jemalloc"))]
pub fn allocator_report() -> Option<String> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_uses_something() {
        let before = cpu_time(Whose::Process);
        let mut sum = 0u64;
        while cpu_time(Whose::Process) == before {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(resident_memory() > 100_000);
        assert!(total_memory() >= resident_memory());
        assert!(system_name().split(' ').count() >= 3);
    }
}
