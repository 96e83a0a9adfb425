//! The memory that the process's cgroup may use, in both versions of cgroups.
//!
//! Boundary: reads files, watches nothing; a limit that is changed later is seen by the next call.

use std::fs;
use std::path::Path;

/// The least memory limit of the process's cgroup and those around it, bytes; `None` where there is none below the
/// machine's memory.
pub fn memory_limit() -> Option<u64> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let machine = crate::usage::total_memory();
    limit_in(&own, Path::new("/sys/fs/cgroup")).filter(|limit| machine == 0 || *limit < machine)
}

/// `own`: the text of `/proc/self/cgroup`; `root`: where the hierarchies are mounted.
fn limit_in(own: &str, root: &Path) -> Option<u64> {
    let mut limits = Vec::new();
    for line in own.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (mount, file) = if controllers.is_empty() {
            (root.to_path_buf(), "memory.max")
        } else if controllers.split(',').any(|controller| controller == "memory") {
            (root.join("memory"), "memory.limit_in_bytes")
        } else {
            continue;
        };
        // In a container the path may be the host's, and the mount's own files are the group's.
        let mut group = Some(Path::new(path.trim_start_matches('/')));
        while let Some(path) = group {
            let text = fs::read_to_string(mount.join(path).join(file)).unwrap_or_default();
            limits.extend(text.trim().parse::<u64>().ok());
            group = path.parent();
        }
    }
    limits.into_iter().min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_limit_on_the_way_up_counts() {
        let root = std::env::temp_dir().join(format!("kara-cgroup-{}", std::process::id()));
        let put = |path: &str, text: &str| {
            let file = root.join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        put("a/memory.max", "500\n");
        put("a/b/memory.max", "max\n");
        put("memory/c/memory.limit_in_bytes", "9223372036854771712\n");
        put("memory/memory.limit_in_bytes", "300\n");
        assert_eq!(limit_in("0::/a/b\n", &root), Some(500));
        assert_eq!(limit_in("0::/\n", &root), None);
        assert_eq!(limit_in("5:cpu,cpuacct:/c\n4:memory:/c\n", &root), Some(300));
        assert_eq!(limit_in("4:memory:/of/the/host\n", &root), Some(300));
        assert_eq!(limit_in("nonsense\n::\n", &root), None);
        fs::remove_dir_all(&root).unwrap();
    }
}
