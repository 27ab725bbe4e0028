//! Whether what `bench` works on fits the memory that there is.

use gradclip::wgpu;

use crate::text;

/// What a gradient set of so many elements, copied with room for so many, would need and there is not;
/// found before anything is allocated.
pub(crate) fn missing(elements: u64, room: u64, adapter: Option<&wgpu::Adapter>) -> Option<String> {
    let set = 4 * room;
    // The host holds the gradients and the pristine ones. A GPU that shares its memory holds them
    // again.
    let shared = adapter.is_some_and(|a| {
        matches!(a.get_info().device_type, wgpu::DeviceType::Cpu | wgpu::DeviceType::IntegratedGpu)
    });
    let needed = 4 * elements + set + if shared { 2 * set } else { 0 };
    let mib = |bytes: u64| text::count(bytes >> 20);
    if let Some(available) = available_memory()
        && needed > available / 10 * 9
    {
        let (needed, available) = (mib(needed), mib(available));
        return Some(format!(
            "needs {needed} MiB of memory, and {available} MiB are free; expected something smaller"
        ));
    }
    if let Some(largest) = adapter.map(|a| a.limits().max_buffer_size)
        && set > largest
    {
        let (needed, largest) = (mib(set), mib(largest));
        return Some(format!(
            "needs a buffer of {needed} MiB, and this adapter's max_buffer_size is {largest} MiB; expected \
             something smaller, or --device cpu"
        ));
    }
    None
}

/// Bytes of memory that are free, where the system says so.
fn available_memory() -> Option<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}
