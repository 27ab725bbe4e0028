//! A Vulkan driver's compiler, asked directly: pipelines are made and nothing is executed, so RADV's null device
//! will do. wgpu opens no device there.

use std::ffi::{CStr, CString};

use ash::{khr, vk};
use gradclip::listing::Bound;
use naga::back::spv;

/// What a compiler says of a pipeline.
#[derive(Clone, Debug, Default)]
pub(crate) struct Compiled {
    /// Names and values of `VK_KHR_pipeline_executable_properties`.
    pub(crate) statistics: Vec<(String, f64)>,
    /// The machine code as the driver prints it, empty where it does not.
    pub(crate) listing: String,
}

impl Compiled {
    pub(crate) fn figure(&self, name: &str) -> Option<f64> {
        let named = |(own, _): &&(String, f64)| own.eq_ignore_ascii_case(name);
        self.statistics.iter().find(named).map(|&(_, value)| value)
    }
}

/// A device with a compiler. It lives as long as the process.
pub(crate) struct Compiler {
    _entry: ash::Entry,
    device: ash::Device,
    executables: khr::pipeline_executable_properties::Device,
    /// The device's name, and the driver's with its version.
    pub(crate) name: String,
    pub(crate) driver: String,
    /// Whether buffers are checked by the device, so that naga need not.
    pub(crate) robust: bool,
    pub(crate) capabilities: Vec<spv::Capability>,
    pub(crate) spirv: (u8, u8),
}

/// As a message, with what was being done.
fn told<T>(doing: &str, result: Result<T, vk::Result>) -> Result<T, String> {
    result.map_err(|error| format!("{doing}: {error}"))
}

fn text(of: &[std::ffi::c_char]) -> String {
    let bytes: Vec<u8> = of.iter().map(|&c| c as u8).take_while(|&c| c != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Compiler {
    /// The first device of the driver that the loader finds.
    pub(crate) fn open() -> Result<Compiler, String> {
        // SAFETY: the Vulkan loader is the system's, and stays loaded in `_entry`.
        let entry = unsafe { ash::Entry::load() }.map_err(|error| format!("no Vulkan loader: {error}"))?;
        let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
        let info = vk::InstanceCreateInfo::default().application_info(&application);
        // SAFETY: what `info` points to outlives the call.
        let instance = told("making a Vulkan instance", unsafe { entry.create_instance(&info, None) })?;
        // SAFETY: the instance is alive; it is never destroyed.
        let devices = told("listing devices", unsafe { instance.enumerate_physical_devices() })?;
        let physical = *devices.first().ok_or("the driver has no device")?;
        let mut driver = vk::PhysicalDeviceDriverProperties::default();
        let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut driver);
        // SAFETY: `physical` belongs to the instance, and the chain is of valid structures.
        unsafe { instance.get_physical_device_properties2(physical, &mut properties) };
        let (name, api) = (text(&properties.properties.device_name), properties.properties.api_version);
        let driver = format!("{} {}", text(&driver.driver_name), text(&driver.driver_info));
        let mut int8 = vk::PhysicalDeviceShaderFloat16Int8Features::default();
        let mut dot = vk::PhysicalDeviceShaderIntegerDotProductFeatures::default();
        let mut robust = vk::PhysicalDeviceRobustness2FeaturesEXT::default();
        let mut told_of = vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default();
        let mut features = vk::PhysicalDeviceFeatures2::default()
            .push_next(&mut int8)
            .push_next(&mut dot)
            .push_next(&mut robust)
            .push_next(&mut told_of);
        // SAFETY: as above.
        unsafe { instance.get_physical_device_features2(physical, &mut features) };
        if api < vk::API_VERSION_1_3 || told_of.pipeline_executable_info == 0 {
            return Err(format!("{name}: no VK_KHR_pipeline_executable_properties, or no Vulkan 1.3"));
        }
        let (int8, dot) = (int8.shader_int8 != 0, dot.shader_integer_dot_product != 0);
        let robust = robust.robust_buffer_access2 != 0;
        let device = open_device(&instance, physical, int8, dot, robust)?;
        let executables = khr::pipeline_executable_properties::Device::new(&instance, &device);
        Ok(Compiler {
            _entry: entry,
            device,
            executables,
            name,
            driver,
            robust,
            capabilities: capabilities(int8, dot),
            spirv: (1, 6),
        })
    }

    /// Makes the pipeline and asks for its figures, and for its code where `listed`, which takes a while.
    pub(crate) fn compile(
        &self,
        words: &[u32],
        entry: &str,
        groups: &[Vec<Bound>],
        listed: bool,
    ) -> Result<Compiled, String> {
        let mut sets = Vec::new();
        for group in groups {
            sets.push(self.set_layout(group)?);
        }
        let device = &self.device;
        let info = vk::PipelineLayoutCreateInfo::default().set_layouts(&sets);
        // SAFETY: the set layouts were just made by this device.
        let layout = told("making a pipeline layout", unsafe { device.create_pipeline_layout(&info, None) })?;
        let info = vk::ShaderModuleCreateInfo::default().code(words);
        // SAFETY: `words` is SPIR-V by naga.
        let module = told("making a shader module", unsafe { device.create_shader_module(&info, None) })?;
        let compiled = self.pipeline(module, layout, entry, listed);
        // SAFETY: nothing uses them any more, nothing was ever submitted.
        unsafe {
            device.destroy_shader_module(module, None);
            device.destroy_pipeline_layout(layout, None);
            for set in sets {
                device.destroy_descriptor_set_layout(set, None);
            }
        }
        compiled
    }

    fn set_layout(&self, group: &[Bound]) -> Result<vk::DescriptorSetLayout, String> {
        let kind = |bound: &Bound| match bound {
            Bound::Uniform => vk::DescriptorType::UNIFORM_BUFFER,
            Bound::Read | Bound::ReadWrite => vk::DescriptorType::STORAGE_BUFFER,
        };
        let bindings: Vec<_> = (0..)
            .zip(group)
            .map(|(i, bound)| {
                vk::DescriptorSetLayoutBinding::default()
                    .binding(i)
                    .descriptor_type(kind(bound))
                    .descriptor_count(1)
                    .stage_flags(vk::ShaderStageFlags::COMPUTE)
            })
            .collect();
        let info = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
        // SAFETY: what `info` points to outlives the call.
        told("making a set layout", unsafe { self.device.create_descriptor_set_layout(&info, None) })
    }

    fn pipeline(
        &self,
        module: vk::ShaderModule,
        layout: vk::PipelineLayout,
        entry: &str,
        listed: bool,
    ) -> Result<Compiled, String> {
        let entry = CString::new(entry).map_err(|error| error.to_string())?;
        let stage = vk::PipelineShaderStageCreateInfo::default()
            .stage(vk::ShaderStageFlags::COMPUTE)
            .module(module)
            .name(&entry);
        let mut flags = vk::PipelineCreateFlags::CAPTURE_STATISTICS_KHR;
        if listed {
            flags |= vk::PipelineCreateFlags::CAPTURE_INTERNAL_REPRESENTATIONS_KHR;
        }
        let info = vk::ComputePipelineCreateInfo::default().flags(flags).stage(stage).layout(layout);
        // SAFETY: module and layout belong to this device, and `info` outlives the call.
        let made = unsafe { self.device.create_compute_pipelines(vk::PipelineCache::null(), &[info], None) };
        let pipeline =
            *made.map_err(|(_, error)| format!("compiling: {error}"))?.first().ok_or("no pipeline")?;
        let executable = vk::PipelineExecutableInfoKHR::default().pipeline(pipeline);
        // SAFETY: the pipeline was made with the flag for statistics, and has one executable.
        let statistics = unsafe { self.executables.get_pipeline_executable_statistics(&executable) };
        let listing = if listed { self.assembly(&executable) } else { Ok(String::new()) };
        // SAFETY: nothing was ever submitted.
        unsafe { self.device.destroy_pipeline(pipeline, None) };
        let statistics = told("asking for statistics", statistics)?;
        Ok(Compiled { statistics: statistics.iter().map(figure_of).collect(), listing: listing? })
    }

    /// The representation that is machine code.
    fn assembly(&self, executable: &vk::PipelineExecutableInfoKHR<'_>) -> Result<String, String> {
        let fp = self.executables.fp().get_pipeline_executable_internal_representations_khr;
        let device = self.executables.device();
        let mut count = 0;
        // SAFETY: with no array to fill, only the count is written.
        told("counting listings", unsafe {
            fp(device, executable, &mut count, std::ptr::null_mut()).result()
        })?;
        let mut all = vec![vk::PipelineExecutableInternalRepresentationKHR::default(); count as usize];
        // SAFETY: `all` has `count` elements; without data pointers the sizes are written.
        told("measuring listings", unsafe { fp(device, executable, &mut count, all.as_mut_ptr()).result() })?;
        let mut bytes: Vec<Vec<u8>> = all.iter().map(|one| vec![0; one.data_size]).collect();
        for (one, bytes) in all.iter_mut().zip(&mut bytes) {
            one.p_data = bytes.as_mut_ptr().cast();
        }
        // SAFETY: each data pointer has the size the driver asked for.
        told("reading listings", unsafe { fp(device, executable, &mut count, all.as_mut_ptr()).result() })?;
        let found = all.iter().zip(bytes).find(|(one, _)| text(&one.name).contains("Assembly"));
        let Some((_, bytes)) = found else { return Ok(String::new()) };
        let listing = CStr::from_bytes_until_nul(&bytes).map_err(|error| error.to_string())?;
        Ok(listing.to_string_lossy().into_owned())
    }
}

fn figure_of(statistic: &vk::PipelineExecutableStatisticKHR<'_>) -> (String, f64) {
    use vk::PipelineExecutableStatisticFormatKHR as Format;
    // SAFETY: `format` says which member was written.
    let value = unsafe {
        match statistic.format {
            Format::BOOL32 => f64::from(statistic.value.b32),
            Format::INT64 => statistic.value.i64 as f64,
            Format::UINT64 => statistic.value.u64 as f64,
            _ => statistic.value.f64,
        }
    };
    (text(&statistic.name), value)
}

/// What wgpu enables of what changes a compute shader's code.
fn open_device(
    instance: &ash::Instance,
    physical: vk::PhysicalDevice,
    int8: bool,
    dot: bool,
    robust: bool,
) -> Result<ash::Device, String> {
    let priorities = [1.0];
    let queues = [vk::DeviceQueueCreateInfo::default().queue_family_index(0).queue_priorities(&priorities)];
    let mut extensions = vec![khr::pipeline_executable_properties::NAME.as_ptr()];
    if robust {
        extensions.push(ash::ext::robustness2::NAME.as_ptr());
    }
    let mut int8 = vk::PhysicalDeviceShaderFloat16Int8Features::default().shader_int8(int8);
    let mut dot =
        vk::PhysicalDeviceShaderIntegerDotProductFeatures::default().shader_integer_dot_product(dot);
    let mut robustness = vk::PhysicalDeviceRobustness2FeaturesEXT::default().robust_buffer_access2(true);
    let mut told_of =
        vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default().pipeline_executable_info(true);
    let core = vk::PhysicalDeviceFeatures::default().robust_buffer_access(true).shader_int64(true);
    let mut info = vk::DeviceCreateInfo::default()
        .queue_create_infos(&queues)
        .enabled_extension_names(&extensions)
        .enabled_features(&core)
        .push_next(&mut int8)
        .push_next(&mut dot)
        .push_next(&mut told_of);
    if robust {
        info = info.push_next(&mut robustness);
    }
    // SAFETY: `physical` belongs to the instance, and all that `info` points to outlives the call.
    told("opening a device", unsafe { instance.create_device(physical, &info, None) })
}

/// What wgpu-hal 30 lets a shader use on such a device, and 64-bit integers.
fn capabilities(int8: bool, dot: bool) -> Vec<spv::Capability> {
    use spv::Capability as C;
    let mut all = vec![C::Shader, C::Matrix, C::Int64];
    if dot {
        all.extend([
            C::DotProductInputAllKHR,
            C::DotProductInput4x8BitKHR,
            C::DotProductInput4x8BitPackedKHR,
            C::DotProductKHR,
        ]);
    }
    if int8 {
        all.push(C::Int8);
    }
    all
}
