//! What the process holds, as the system counts it.

/// Bytes of memory that are resident now; `None` where the system does not tell (all but Linux). Reads a small file: for a
/// slow timer.
pub fn resident_bytes() -> Option<usize> {
    if !cfg!(target_os = "linux") {
        // Wine shows a file of that name, of another process.
        return None;
    }
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<usize>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_touched_is_resident() {
        let Some(before) = super::resident_bytes() else { return println!("skipped: not told here") };
        let touched = std::hint::black_box(vec![7u8; 64 << 20]);
        let after = super::resident_bytes().expect("it was told a moment ago");
        assert!(after > before + (32 << 20), "{before} and with {} more {after}", touched.len());
    }
}
