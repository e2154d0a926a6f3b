use super::*;

/// A record whose digest is the letter repeated.
pub(in crate::deploy) fn record(
    number: u64,
    digest: char,
    cause: Cause,
    state: DeploymentState,
) -> Record {
    let digest = digest.to_string().repeat(64);
    Record {
        number,
        deployment: digest[..12].to_owned(),
        digest,
        size: 1,
        pipeline: "eye".into(),
        requested: "2026-01-01T00:00:00.000Z".into(),
        state,
        ..Record::draft("cam", cause, "test".into())
    }
}

#[test]
fn a_state_is_one_word_and_is_read_back() {
    let states = [DeploymentState::Pending, DeploymentState::Probation]
        .into_iter()
        .chain(Outcome::ALL.iter().copied().map(DeploymentState::Ended));
    for state in states {
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(text, format!("\"{}\"", state.name()));
        assert_eq!(serde_json::from_str::<DeploymentState>(&text).unwrap(), state);
    }
}

#[test]
fn a_record_is_read_back_as_it_was_written() {
    let mut record = record(7, 'a', Cause::Rollback, DeploymentState::Ended(Outcome::Aborted));
    record.swapped = Some(Swapped { total_ms: 12.5, gap_ms: Some(0.1), ..Swapped::default() });
    let text = serde_json::to_string(&record).unwrap();
    assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
}
