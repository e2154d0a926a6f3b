//! Boxes of the NanoDet detectors (RangiLyu/nanodet), whose box sides are distributions over bins,
//! after Li et al., "Generalized Focal Loss", NeurIPS 2020.

mod detector;
mod level;

pub use detector::{
    CLASSES, DEFAULT, Detector, INPUT, KNOWN, LEVELS, LevelNames, Variant, find, in_frame,
};
pub use level::{BINS, Columns, Level, LevelForm, STRIDES};
