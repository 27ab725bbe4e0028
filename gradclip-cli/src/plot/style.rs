//! How pictures look: colours, letters, axes, and labels beside the lines that they name.

use plotters::backend::SVGBackend;
use plotters::chart::{ChartBuilder, ChartContext};
use plotters::coord::Shift;
use plotters::coord::cartesian::Cartesian2d;
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::element::{DashedPathElement, PathElement, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{BLACK, Color, IntoFont, RGBColor, ShapeStyle, TextStyle, WHITE};

use crate::failure::Failure;
use crate::plot::axis::Axis;

/// Below the axes, for their numbers and names.
pub(crate) const FOOT: u32 = 52;
/// Distance of labels.
const LINE: i32 = 18;

// Colours that can be told apart by nearly everybody (Okabe and Ito).
pub(crate) const BLUE: RGBColor = RGBColor(0, 114, 178);
pub(crate) const ORANGE: RGBColor = RGBColor(213, 94, 0);
pub(crate) const GREEN: RGBColor = RGBColor(0, 135, 98);
pub(crate) const GREY: RGBColor = RGBColor(110, 110, 110);
const PALE: RGBColor = RGBColor(232, 232, 232);

pub(crate) type Error = Box<dyn std::error::Error>;
pub(crate) type Area<'s> = DrawingArea<SVGBackend<'s>, Shift>;
pub(crate) type Chart<'s> = ChartContext<'s, SVGBackend<'s>, Cartesian2d<Axis, Axis>>;

/// The picture that `draw` draws, as SVG.
pub(crate) fn svg(
    size: (u32, u32),
    draw: impl FnOnce(&Area<'_>) -> Result<(), Error>,
) -> Result<String, Failure> {
    let mut picture = String::new();
    let drawn = || -> Result<(), Error> {
        let root = SVGBackend::with_string(&mut picture, size).into_drawing_area();
        root.fill(&WHITE)?;
        draw(&root)?;
        root.present()?;
        Ok(())
    };
    drawn().map_err(|error| Failure::Usage(format!("--plot: cannot draw, {error}")))?;
    Ok(picture)
}

pub(crate) fn font(size: u32, colour: RGBColor) -> TextStyle<'static> {
    TextStyle { color: colour.to_backend_color(), ..TextStyle::from(("sans-serif", size).into_font()) }
}

/// The title, and lines below it.
pub(crate) fn title(root: &Area<'_>, title: String, below: Vec<String>) -> Result<(), Error> {
    root.draw(&Text::new(title, (24, 18), font(24, BLACK)))?;
    for (line, y) in below.into_iter().zip((48..).step_by(22)) {
        root.draw(&Text::new(line, (24, y), font(17, GREY)))?;
    }
    Ok(())
}

/// A chart whose vertical axis has so many pixels for its numbers.
pub(crate) fn chart<'s>(area: &Area<'s>, numbers: u32, x: Axis, y: &Axis) -> Result<Chart<'s>, Error> {
    chart_above(FOOT, area, numbers, x, y)
}

/// The same above so many pixels for the horizontal axis, which 0 leaves without numbers.
pub(crate) fn chart_above<'s>(
    foot: u32,
    area: &Area<'s>,
    numbers: u32,
    x: Axis,
    y: &Axis,
) -> Result<Chart<'s>, Error> {
    let mut builder = ChartBuilder::on(area);
    builder
        .margin_left(16)
        .margin_right(14)
        .margin_top(6)
        .margin_bottom(8)
        .x_label_area_size(foot)
        .y_label_area_size(numbers);
    Ok(builder.build_cartesian_2d(x, y.clone())?)
}

/// What an axis is called, about how many numbers it has, and how they are formatted.
pub(crate) struct Named<'a> {
    pub(crate) name: &'a str,
    pub(crate) numbers: usize,
    pub(crate) format: fn(&f64) -> String,
}

pub(crate) fn mesh(chart: &mut Chart<'_>, x: &Named<'_>, y: &Named<'_>) -> Result<(), Error> {
    chart
        .configure_mesh()
        .bold_line_style(PALE)
        .axis_style(GREY)
        .label_style(font(15, GREY))
        .axis_desc_style(font(16, BLACK))
        .x_desc(x.name)
        .y_desc(y.name)
        .x_labels(x.numbers)
        .y_labels(y.numbers)
        .x_label_formatter(&x.format)
        .y_label_formatter(&y.format)
        .draw()?;
    Ok(())
}

/// How a line looks.
#[derive(Clone, Copy)]
pub(crate) struct Stroke {
    pub(crate) colour: RGBColor,
    pub(crate) width: u32,
    pub(crate) dashed: bool,
}

impl Stroke {
    pub(crate) fn style(self) -> ShapeStyle {
        self.colour.stroke_width(self.width)
    }

    /// Draws it through pixels.
    pub(crate) fn draw(self, root: &Area<'_>, path: Vec<(i32, i32)>) -> Result<(), Error> {
        match self.dashed {
            true => root.draw(&DashedPathElement::new(path, 6, 4, self.style()))?,
            false => root.draw(&PathElement::new(path, self.style()))?,
        }
        Ok(())
    }
}

/// A label at the right of the line that it names.
pub(crate) struct Label<'a> {
    pub(crate) text: &'a str,
    pub(crate) stroke: Stroke,
    /// Where the line ends, in pixels.
    pub(crate) end: (i32, i32),
}

/// Names lines at the right, apart from each other between `top` and `bottom`, each tied to its line.
pub(crate) fn labels(root: &Area<'_>, mut labels: Vec<Label<'_>>, between: (i32, i32)) -> Result<(), Error> {
    labels.sort_by_key(|label| label.end.1);
    let places = apart(&labels.iter().map(|label| label.end.1).collect::<Vec<i32>>(), between.0, between.1);
    for (Label { text, stroke, end: (x, y) }, place) in labels.into_iter().zip(places) {
        stroke.draw(root, vec![(x, y), (x + 6, y), (x + 18, place), (x + 22, place)])?;
        let style = font(16, stroke.colour).pos(Pos::new(HPos::Left, VPos::Center));
        root.draw(&Text::new(text.to_owned(), (x + 26, place), style))?;
    }
    Ok(())
}

/// Moves ascending places apart until neighbours have room.
fn apart(places: &[i32], top: i32, bottom: i32) -> Vec<i32> {
    let mut apart = places.to_vec();
    let mut least = top;
    for place in &mut apart {
        *place = (*place).max(least);
        least = *place + LINE;
    }
    let mut most = bottom;
    for place in apart.iter_mut().rev() {
        *place = (*place).min(most);
        most = *place - LINE;
    }
    apart
}

#[cfg(test)]
mod tests {
    use super::apart;

    #[test]
    fn labels_have_room() {
        assert_eq!(apart(&[10, 100, 300], 0, 400), [10, 100, 300]);
        assert_eq!(apart(&[10, 12, 13], 0, 400), [10, 28, 46]);
        assert_eq!(apart(&[390, 395, 400], 0, 400), [364, 382, 400]);
    }
}
