//! Lets access units through from a key picture on, and notes where something is missing.

/// Filters a live stream. After a loss, pictures refer to missing ones up to the next key picture.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct KeyFrameGate {
    open: bool,
    broken: bool,
    delivered: bool,
}

impl KeyFrameGate {
    /// A new session: it does not continue the one before, and may begin in the middle of a GOP.
    pub(super) fn new_session(&mut self) {
        self.open = false;
        self.broken = true;
    }

    /// Whether a unit passes, and if so, whether something is missing between it and the one that
    /// passed before. `lost`: packets between the unit before this one and this one did not arrive.
    pub(super) fn admit(&mut self, key: bool, lost: bool) -> Option<bool> {
        if lost {
            self.open = false;
            self.broken = true;
        }
        self.open |= key;
        if !self.open {
            return None;
        }
        let discontinuity = self.broken && self.delivered;
        self.broken = false;
        self.delivered = true;
        Some(discontinuity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_join_in_mid_gop_waits_for_the_first_key_picture() {
        let mut gate = KeyFrameGate::default();
        gate.new_session();
        assert_eq!(gate.admit(false, false), None);
        assert_eq!(
            gate.admit(true, false),
            Some(false),
            "nothing was given out that could miss something"
        );
        assert_eq!(gate.admit(false, false), Some(false));
    }

    #[test]
    fn after_loss_units_wait_for_a_key_picture_which_is_marked() {
        let mut gate = KeyFrameGate::default();
        gate.admit(true, false);
        assert_eq!(gate.admit(false, true), None);
        assert_eq!(gate.admit(false, false), None);
        assert_eq!(gate.admit(true, false), Some(true));
        assert_eq!(gate.admit(false, false), Some(false));
        assert_eq!(gate.admit(true, true), Some(true), "a whole key picture behind a loss");
    }

    #[test]
    fn a_new_session_is_a_discontinuity() {
        let mut gate = KeyFrameGate::default();
        gate.new_session();
        gate.admit(true, false);
        gate.new_session();
        assert_eq!(gate.admit(false, false), None);
        assert_eq!(gate.admit(true, false), Some(true));
    }
}
