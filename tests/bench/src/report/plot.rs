//! Rates against direct connections, as SVG.

use std::path::Path;

use anyhow::anyhow;
use plotters::prelude::*;

use super::select::Series;
use crate::{regime::Regime, statistics::Estimate};

const SIZE: (u32, u32) = (860, 430);
const FONT: &str = "sans-serif";

/// What stands side by side on the horizontal axis.
struct Place {
    name: String,
    /// What each regime reached there.
    ratios: Vec<(Regime, Estimate)>,
}

/// Draws set-up: the cases side by side.
pub(super) fn cases(path: &Path, all: &Series<'_>) -> anyhow::Result<()> {
    let places: Vec<_> = all
        .cases()
        .into_iter()
        .map(|case| Place { name: case.to_owned(), ratios: ratios(&all.case(case), 0) })
        .collect();
    draw(path, "Connections per second against direct", &places, false)
}

/// Draws growth: the sizes side by side, each regime's joined by a line.
pub(super) fn growth(path: &Path, what: &str, all: &Series<'_>) -> anyhow::Result<()> {
    let place = |size: u64| Place { name: size.to_string(), ratios: ratios(all, size) };
    let places: Vec<_> = all.sizes().into_iter().map(place).collect();
    draw(path, &format!("Connections per second against direct, by {what}"), &places, true)
}

fn ratios(series: &Series<'_>, size: u64) -> Vec<(Regime, Estimate)> {
    let Some(direct) = series.direct(size) else { return Vec::new() };
    let subjects = series.subjects().into_iter();
    subjects
        .filter(|subject| subject.size == size && subject.regime != Regime::Direct)
        .filter_map(|subject| {
            Some((subject.regime, series.ratio(subject, direct, "connections_per_second")?))
        })
        .collect()
}

fn draw(path: &Path, title: &str, places: &[Place], joined: bool) -> anyhow::Result<()> {
    let failed = |error: &dyn std::fmt::Display| anyhow!("cannot draw {}: {error}", path.display());
    let top =
        places.iter().flat_map(|place| &place.ratios).map(|(_, estimate)| estimate.high).fold(1.1, f64::max);
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE).map_err(|error| failed(&error))?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, (FONT, 18))
        .margin(12)
        .x_label_area_size(32)
        .y_label_area_size(44)
        .build_cartesian_2d(-0.5..places.len() as f64 - 0.5, 0.0..top * 1.05)
        .map_err(|error| failed(&error))?;
    let name = |position: &f64| {
        let place = places.iter().zip(0_u32..).find(|(_, at)| (position - f64::from(*at)).abs() < 0.01);
        place.map_or_else(String::new, |(place, _)| place.name.clone())
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(2 * places.len() + 1)
        .x_label_formatter(&name)
        .y_desc("1 = direct")
        .label_style((FONT, 12))
        .draw()
        .map_err(|error| failed(&error))?;
    for (regime, nth) in Regime::ALL.into_iter().filter(|regime| *regime != Regime::Direct).zip(0_u32..) {
        // Side by side, so that the bounds of one do not hide another's.
        let offset = (f64::from(nth) - 1.5) * if joined { 0.02 } else { 0.12 };
        let points: Vec<(f64, Estimate)> = places
            .iter()
            .zip(0_u32..)
            .filter_map(|(place, at)| {
                let (_, estimate) = place.ratios.iter().find(|(other, _)| *other == regime)?;
                Some((f64::from(at) + offset, *estimate))
            })
            .collect();
        if points.is_empty() {
            continue;
        }
        let color = color(regime);
        if joined {
            let line = points.iter().map(|(x, estimate)| (*x, estimate.median));
            chart
                .draw_series(LineSeries::new(line, color.stroke_width(2)))
                .map_err(|error| failed(&error))?;
        }
        let bars = points.iter().map(|(x, estimate)| {
            ErrorBar::new_vertical(*x, estimate.low, estimate.median, estimate.high, color.filled(), 9)
        });
        chart
            .draw_series(bars)
            .map_err(|error| failed(&error))?
            .label(regime.to_string())
            .legend(move |(x, y)| Circle::new((x + 8, y), 5, color.filled()));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerLeft)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.2))
        .label_font((FONT, 13))
        .draw()
        .map_err(|error| failed(&error))?;
    area.present().map_err(|error| failed(&error))
}

/// Colours that people who see red and green alike can tell apart (Okabe and Ito).
const fn color(regime: Regime) -> RGBColor {
    match regime {
        Regime::Direct => BLACK,
        Regime::Ebpf => RGBColor(0, 114, 178),
        Regime::EbpfNoSpread => RGBColor(86, 180, 233),
        Regime::IptablesLegacy => RGBColor(230, 159, 0),
        Regime::IptablesNft => RGBColor(213, 94, 0),
        Regime::Nft => RGBColor(204, 121, 167),
    }
}
