#![doc = include_str!("../guide/index.md")]

// Pictures of `threshold`: `gradclip suggest --plot` over the norms in the case named there, and the example `telemetry`; the first
// line of each has `style="max-width:100%;height:auto"` added.

/// A picture that stands in the page itself.
macro_rules! picture {
    ($words:literal, $file:literal) => {
        concat!(
            "<figure role=\"img\" aria-label=\"",
            $words,
            "\" style=\"margin:1em 0\">\n",
            include_str!($file),
            "\n</figure>\n"
        )
    };
}

pub mod threshold {
    #![doc = include_str!("../guide/threshold.md")]
    #![doc = ""]
    #![doc = picture!("Norms of 20 steps, their histogram and percentiles; percentile 90 is 27.03", "../guide/norms.svg")]
    #![doc = ""]
    #![doc = include_str!("../guide/threshold_adaptive.md")]
    #![doc = ""]
    #![doc = picture!("Norms of 600 steps and the threshold of ZClip", "../guide/zclip.svg")]
    #![doc = ""]
    #![doc = include_str!("../guide/threshold_autoclip.md")]
    #![doc = ""]
    #![doc = picture!("Norms of 600 steps and the threshold of AutoClip", "../guide/autoclip.svg")]
    #![doc = ""]
    #![doc = include_str!("../guide/threshold_end.md")]
}

pub mod spikes {
    #![doc = include_str!("../guide/spikes.md")]
}

pub mod coming_from {
    #![doc = include_str!("../guide/coming_from.md")]
}

pub mod mixed_precision {
    #![doc = include_str!("../guide/mixed_precision.md")]
}

pub mod training {
    #![doc = include_str!("../guide/loop.md")]
}

pub mod privacy {
    #![doc = include_str!("../guide/privacy.md")]
}

pub mod groups {
    #![doc = include_str!("../guide/groups.md")]
}

pub mod embeddings {
    #![doc = include_str!("../guide/embeddings.md")]
}

pub mod arenas {
    #![doc = include_str!("../guide/arenas.md")]
}

pub mod report {
    #![doc = include_str!("../guide/report.md")]
}

pub mod browser {
    #![doc = include_str!("../guide/browser.md")]
}

pub mod command_line {
    #![doc = include_str!("../guide/command_line.md")]
}
