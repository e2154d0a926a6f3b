//! How a picture is turned.

use serde::{Deserialize, Serialize};

/// What has to be done to a picture as it is coded so that it stands upright: EXIF's values 1 to 8
/// in their order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Orientation {
    /// Nothing.
    #[default]
    Upright,
    /// Left and right change places.
    MirrorAcross,
    /// Half a turn.
    HalfTurn,
    /// Above and below change places.
    MirrorDown,
    /// Rows become columns.
    Transpose,
    /// A quarter turn clockwise.
    TurnRight,
    /// Rows become columns, and half a turn.
    Transverse,
    /// A quarter turn counter-clockwise.
    TurnLeft,
}

impl Orientation {
    /// Whether rows become columns, so that width and height change places.
    pub fn is_quarter_turn(self) -> bool {
        matches!(self, Self::Transpose | Self::TurnRight | Self::Transverse | Self::TurnLeft)
    }

    /// EXIF's value, less 1: 0 to 7, and 0 for upright.
    pub fn code(self) -> u8 {
        match self {
            Self::Upright => 0,
            Self::MirrorAcross => 1,
            Self::HalfTurn => 2,
            Self::MirrorDown => 3,
            Self::Transpose => 4,
            Self::TurnRight => 5,
            Self::Transverse => 6,
            Self::TurnLeft => 7,
        }
    }

    /// Width and height as shown, of a picture coded in this width and height.
    pub fn shown<T>(self, (width, height): (T, T)) -> (T, T) {
        if self.is_quarter_turn() { (height, width) } else { (width, height) }
    }
}
