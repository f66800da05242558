//! From samples to a page, plots and a verdict.

mod goals;
mod page;
mod plot;
mod select;
mod tables;

pub(crate) use self::{
    goals::{Judged, judge},
    page::write,
    tables::goals,
};
