//! WGSL to what drivers take, by naga with the options of wgpu-hal 30; trusted shaders without checks of indices and
//! counters of loops, as the library makes them.

use gradclip::listing::{Bound, Shader};
use naga::back::{glsl, hlsl, msl, spv};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{Module, ResourceBinding, ShaderStage};

use crate::vulkan::Compiler;

/// A shader that naga has read.
pub(crate) struct Parsed<'a> {
    module: Module,
    info: ModuleInfo,
    entry: &'a str,
}

impl Parsed<'_> {
    pub(crate) fn new<'a>(wgsl: &str, entry: &'a str) -> Result<Parsed<'a>, String> {
        let module = naga::front::wgsl::parse_str(wgsl).map_err(|error| error.emit_to_string(wgsl))?;
        let mut validator = Validator::new(ValidationFlags::all(), Capabilities::SHADER_INT64);
        let info = validator.validate(&module).map_err(|error| error.emit_to_string(wgsl))?;
        Ok(Parsed { module, info, entry })
    }

    /// How the shader itself uses the buffers of each group.
    pub(crate) fn groups(&self) -> Vec<Vec<Bound>> {
        let mut groups: Vec<Vec<Bound>> = Vec::new();
        for (_, variable) in self.module.global_variables.iter() {
            let Some(at) = variable.binding else { continue };
            let bound = match variable.space {
                naga::AddressSpace::Uniform => Bound::Uniform,
                naga::AddressSpace::Storage { access } if !access.contains(naga::StorageAccess::STORE) => {
                    Bound::Read
                }
                _ => Bound::ReadWrite,
            };
            let (group, binding) = (at.group as usize, at.binding as usize);
            groups.resize(groups.len().max(group + 1), Vec::new());
            let group = &mut groups[group];
            group.resize(group.len().max(binding + 1), Bound::ReadWrite);
            group[binding] = bound;
        }
        groups
    }

    /// For Vulkan.
    pub(crate) fn spirv(&self, shader: &Shader, for_: &Compiler) -> Result<Vec<u32>, String> {
        let own = |at: ResourceBinding| spv::BindingInfo {
            descriptor_set: at.group,
            binding: at.binding,
            binding_array_size: None,
        };
        let mut policies = policies(shader);
        if for_.robust {
            policies.buffer = BoundsCheckPolicy::Unchecked;
        }
        let options = spv::Options {
            lang_version: for_.spirv,
            flags: spv::WriterFlags::LABEL_VARYINGS | spv::WriterFlags::FORCE_POINT_SIZE,
            capabilities: Some(for_.capabilities.iter().copied().collect()),
            bounds_check_policies: policies,
            // All kernels are compiled with `zero_initialize_workgroup_memory: false`.
            zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
            force_loop_bounding: !shader.trusted,
            use_storage_input_output_16: false,
            binding_map: bindings(&shader.groups).map(|(at, _)| (at, own(at))).collect(),
            fake_missing_bindings: false,
            ..spv::Options::default()
        };
        let pipeline =
            spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: self.entry.into() };
        spv::write_vec(&self.module, &self.info, &options, Some(&pipeline)).map_err(|e| e.to_string())
    }

    /// For Metal.
    pub(crate) fn msl(&self, shader: &Shader) -> Result<String, String> {
        let mut resources = msl::BindingMap::default();
        let mut next = 0;
        for (at, bound) in bindings(&shader.groups) {
            let target = msl::BindTarget {
                buffer: Some(next),
                mutable: bound == Bound::ReadWrite,
                ..Default::default()
            };
            resources.insert(at, target);
            next += 1;
        }
        let resources =
            msl::EntryPointResources { resources, sizes_buffer: Some(next), immediates_buffer: None };
        let options = msl::Options {
            lang_version: (2, 0),
            fake_missing_bindings: false,
            per_entry_point_map: [(self.entry.to_owned(), resources)].into(),
            bounds_check_policies: policies(shader),
            zero_initialize_workgroup_memory: false,
            force_loop_bounding: !shader.trusted,
            ..msl::Options::default()
        };
        let pipeline = msl::PipelineOptions {
            entry_point: Some((ShaderStage::Compute, self.entry.into())),
            ..Default::default()
        };
        let (source, info) = msl::write_string(&self.module, &self.info, &options, &pipeline)
            .map_err(|error| error.to_string())?;
        info.entry_point_names.into_iter().collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())?;
        Ok(source)
    }

    /// For DirectX 12.
    pub(crate) fn hlsl(&self, shader: &Shader) -> Result<String, String> {
        let mut binding_map = hlsl::BindingMap::default();
        // Uniform buffers, read-only and writable ones are counted apart.
        let mut next = [0; 3];
        for (at, bound) in bindings(&shader.groups) {
            let register = &mut next[bound as usize];
            binding_map.insert(at, hlsl::BindTarget { register: *register, ..Default::default() });
            *register += 1;
        }
        let special = hlsl::BindTarget { register: next[Bound::Uniform as usize], ..Default::default() };
        let options = hlsl::Options {
            shader_model: hlsl::ShaderModel::V6_0,
            binding_map,
            fake_missing_bindings: false,
            special_constants_binding: Some(special),
            zero_initialize_workgroup_memory: false,
            restrict_indexing: !shader.trusted,
            force_loop_bounding: !shader.trusted,
            ..hlsl::Options::default()
        };
        let pipeline = hlsl::PipelineOptions { entry_point: Some((ShaderStage::Compute, self.entry.into())) };
        let mut source = String::new();
        let written = hlsl::Writer::new(&mut source, &options, &pipeline)
            .write(&self.module, &self.info, None)
            .map_err(|error| error.to_string())?;
        written.entry_point_names.into_iter().collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())?;
        Ok(source)
    }

    /// For OpenGL ES 3.1, the least that has compute shaders.
    pub(crate) fn glsl(&self, groups: &[Vec<Bound>]) -> Result<String, String> {
        let mut binding_map = glsl::BindingMap::default();
        // Uniform and storage buffers are counted apart.
        let mut next = [0; 2];
        for (at, bound) in bindings(groups) {
            let slot = &mut next[usize::from(bound != Bound::Uniform)];
            binding_map.insert(at, *slot);
            *slot += 1;
        }
        let options = glsl::Options {
            version: glsl::Version::new_gles(310),
            writer_flags: glsl::WriterFlags::ADJUST_COORDINATE_SPACE | glsl::WriterFlags::FORCE_POINT_SIZE,
            binding_map,
            zero_initialize_workgroup_memory: false,
        };
        let pipeline = glsl::PipelineOptions {
            shader_stage: ShaderStage::Compute,
            entry_point: self.entry.into(),
            multiview: None,
        };
        // GL checks bounds itself, or nobody does.
        let policies = BoundsCheckPolicies::default();
        let mut source = String::new();
        glsl::Writer::new(&mut source, &self.module, &self.info, &options, &pipeline, policies)
            .and_then(|mut writer| writer.write())
            .map_err(|error| error.to_string())?;
        Ok(source)
    }
}

fn policies(shader: &Shader) -> BoundsCheckPolicies {
    let all = if shader.trusted { BoundsCheckPolicy::Unchecked } else { BoundsCheckPolicy::Restrict };
    BoundsCheckPolicies {
        index: all,
        buffer: all,
        image_load: all,
        binding_array: BoundsCheckPolicy::Unchecked,
    }
}

/// All buffers in wgpu's order.
fn bindings(groups: &[Vec<Bound>]) -> impl Iterator<Item = (ResourceBinding, Bound)> + '_ {
    (0..).zip(groups).flat_map(|(group, bound)| {
        (0..).zip(bound).map(move |(binding, &bound)| (ResourceBinding { group, binding }, bound))
    })
}
