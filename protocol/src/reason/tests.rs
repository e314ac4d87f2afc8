use std::collections::HashSet;

use super::*;

#[test]
fn codes_and_labels_are_unique_and_round_trip() {
    let mut labels = HashSet::new();
    for &reason in CloseReason::ALL {
        assert_eq!(CloseReason::from_code(reason as u16), Some(reason));
        assert!(
            labels.insert(reason.label()),
            "{} stands twice",
            reason.label()
        );
        assert!(!reason.text().is_empty());
    }
    for &reason in DropReason::ALL {
        assert_eq!(DropReason::ALL[reason as usize], reason);
        assert!(
            labels.insert(reason.label()),
            "{} stands twice",
            reason.label()
        );
    }
    assert_eq!(CloseReason::from_code(0), None);
}
