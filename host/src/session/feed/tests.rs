use super::*;
use crate::source::tests::unit;
use ocelli_protocol::wire;
use proptest::prelude::*;
use tokio::io::AsyncReadExt;
use tokio::net::unix::OwnedReadHalf;

const GOP: u64 = 5;

/// What a worker was sent, in order.
#[derive(Debug, Clone, PartialEq)]
enum Got {
    Unit(u64),
    Message(ToWorker),
    End,
}

/// Everything up to the end of the connection.
async fn all(mut from: OwnedReadHalf) -> Vec<Got> {
    let mut got = Vec::new();
    let mut header = [0; wire::HEADER];
    while from.read_exact(&mut header).await.is_ok() {
        let (message, payload) = wire::decode_header(header).unwrap();
        let mut bytes = vec![0; message + payload];
        from.read_exact(&mut bytes).await.unwrap();
        got.push(match wire::decode(&bytes[..message]).unwrap() {
            ToWorker::Unit(header) => Got::Unit(header.number),
            ToWorker::EndOfStream => Got::End,
            other => Got::Message(other),
        });
    }
    got
}

struct Rig {
    pump: Pump,
    notes: mpsc::Receiver<SourceNote>,
    done: Arc<AtomicU64>,
    number: u64,
}

/// A pump and the reader of its first worker.
fn rig() -> (Rig, JoinHandle<Vec<Got>>) {
    let (outbox, from) = WorkerSender::pair();
    let (notes, inbox) = mpsc::channel(NOTE_CAPACITY);
    let done = Arc::<AtomicU64>::default();
    let pump = Pump {
        active: WorkerLane::start(outbox),
        candidate: None,
        superseded: None,
        retained: RetainedUnits::new(Arc::clone(&done)),
        paused: false,
        ended: false,
        codec: None,
        shown_codec: Arc::default(),
        notes,
    };
    (Rig { pump, notes: inbox, done, number: 0 }, tokio::spawn(all(from)))
}

impl Rig {
    async fn units(&mut self, count: u64) {
        for number in self.number..self.number + count {
            self.pump.event(SourceEvent::Unit(unit(number, number.is_multiple_of(GOP), 1))).await;
        }
        self.number += count;
    }

    fn join(&mut self, first: Vec<Outgoing>) -> JoinHandle<Vec<Got>> {
        let (outbox, from) = WorkerSender::pair();
        self.pump.command(PumpCommand::Attach(WorkerLane::start(outbox), first));
        tokio::spawn(all(from))
    }

    /// Ends the pump once everything is written.
    async fn end(self) {
        for lane in [Some(&self.pump.active), self.pump.candidate.as_ref()].into_iter().flatten() {
            written(lane).await;
        }
    }
}

/// Waits until everything in a lane is written: the item that is taken last is written before
/// the one behind it is taken.
async fn written(lane: &WorkerLane) {
    for _ in 0..2 {
        lane.push(LaneItem::Message((ToWorker::Reinstantiate, Vec::new())));
        while !lane.queue.waiting.lock().items.is_empty() {
            tokio::task::yield_now().await;
        }
    }
}

fn units(got: &[Got]) -> Vec<u64> {
    got.iter()
        .filter_map(|got| if let Got::Unit(number) = got { Some(*number) } else { None })
        .collect()
}

#[tokio::test]
async fn the_new_worker_gets_what_it_needs_to_go_on_and_then_the_same_units() {
    let (mut rig, blue) = rig();
    rig.units(23).await;
    rig.done.store(18, Ordering::Relaxed);
    let green = rig.join(Vec::new());
    rig.units(4).await;
    rig.pump.command(PumpCommand::Pause);
    rig.pump.command(PumpCommand::Send(Target::Active, (ToWorker::Snapshot, Vec::new())));
    rig.pump.command(PumpCommand::Send(
        Target::Candidate,
        (ToWorker::Activate { after: Some(26) }, Vec::new()),
    ));
    rig.pump.command(PumpCommand::Promote);
    rig.units(3).await;
    written(&rig.pump.superseded.as_ref().unwrap().0).await;
    rig.pump.command(PumpCommand::Commit);
    let blue = blue.await.unwrap();
    rig.end().await;
    let green = green.await.unwrap();
    assert_eq!(units(&blue), (0..27).collect::<Vec<_>>());
    assert_eq!(blue[27], Got::Message(ToWorker::Snapshot));
    // Nothing was said to be done with when the key units came, so all of them are kept.
    assert_eq!(units(&green), (0..30).collect::<Vec<_>>());
    assert_eq!(green[27], Got::Message(ToWorker::Activate { after: Some(26) }));
}

#[tokio::test]
async fn a_worker_that_goes_on_for_a_lost_one_is_told_first_and_gets_the_end_too() {
    let (mut rig, blue) = rig();
    rig.units(7).await;
    rig.pump.event(SourceEvent::Ended).await;
    assert!(matches!(rig.notes.recv().await, Some(SourceNote::Ended)));
    let green = rig.join(vec![(ToWorker::Activate { after: Some(3) }, Vec::new())]);
    rig.pump.command(PumpCommand::Promote);
    rig.pump.command(PumpCommand::Commit);
    rig.end().await;
    let green = green.await.unwrap();
    assert_eq!(green[0], Got::Message(ToWorker::Activate { after: Some(3) }));
    assert_eq!((units(&green), &green[8]), ((0..7).collect(), &Got::End));
    drop(blue);
}

#[tokio::test]
async fn a_worker_that_does_not_keep_up_with_decoding_is_let_go() {
    let (mut rig, blue) = rig();
    let (outbox, unread) = WorkerSender::pair();
    rig.pump.command(PumpCommand::Attach(WorkerLane::start(outbox), Vec::new()));
    for number in 0..2 * MAX_BEHIND as u64 {
        rig.pump.event(SourceEvent::Unit(unit(number, number == 0, 10_000))).await;
    }
    assert!(rig.pump.candidate.is_none());
    rig.end().await;
    assert_eq!(units(&blue.await.unwrap()).len(), 2 * MAX_BEHIND, "the other one does not notice");
    drop(unread);
}

#[test]
fn what_is_retained_begins_with_a_key_unit_and_covers_what_is_not_done_with() {
    proptest!(|(steps in proptest::collection::vec((1u64..40, 0u64..40), 1..40))| {
        let done = Arc::<AtomicU64>::default();
        let mut retained = RetainedUnits::new(Arc::clone(&done));
        let mut number = 0;
        for (count, behind) in steps {
            for next in number..number + count {
                retained.push(&unit(next, next.is_multiple_of(GOP), 1));
            }
            number += count;
            let first = retained.units.front().unwrap();
            prop_assert!(first.header.key);
            let so_far = done.load(Ordering::Relaxed);
            prop_assert!(first.header.number <= so_far, "frame {so_far} needs unit \
                {}", first.header.number);
            prop_assert_eq!(retained.bytes, retained.units.len());
            done.fetch_max(number.saturating_sub(behind), Ordering::Relaxed);
        }
    });
}

#[derive(Debug, Clone)]
enum FeedStep {
    Units(u64),
    Join,
    Dismiss,
    Change { withheld: u64, recall: bool },
}

fn step() -> impl Strategy<Value = FeedStep> {
    prop_oneof![
        3 => (1u64..12).prop_map(FeedStep::Units),
        2 => Just(FeedStep::Join),
        1 => Just(FeedStep::Dismiss),
        2 => (0u64..12, any::<bool>()).prop_map(|(withheld, recall)| FeedStep::Change { withheld, recall }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_changes_places_every_unit_reaches_the_one_that_speaks_once(
        steps in proptest::collection::vec(step(), 1..20),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut rig, first) = rig();
            // Who speaks, and from which unit on; where it stopped.
            let (mut speaks, mut from) = (first, 0);
            let mut spoke: Vec<(JoinHandle<Vec<Got>>, u64, u64)> = Vec::new();
            let mut ready = None;
            for step in steps {
                match step {
                    FeedStep::Units(count) => rig.units(count).await,
                    FeedStep::Join => ready = Some(rig.join(Vec::new())),
                    FeedStep::Dismiss => {
                        rig.pump.command(PumpCommand::Detach);
                        ready = None;
                    }
                    FeedStep::Change { withheld, recall } => {
                        let Some(green) = ready.take() else { continue };
                        rig.pump.command(PumpCommand::Pause);
                        let at = rig.number;
                        rig.pump.command(PumpCommand::Promote);
                        rig.units(withheld).await;
                        if recall {
                            rig.pump.command(PumpCommand::Revert);
                        } else {
                            written(&rig.pump.superseded.as_ref().unwrap().0).await;
                            rig.pump.command(PumpCommand::Commit);
                            spoke.push((std::mem::replace(&mut speaks, green), from, at));
                            from = at;
                        }
                    }
                }
            }
            let end = rig.number;
            rig.end().await;
            spoke.push((speaks, from, end));
            let mut heard = Vec::new();
            for (got, from, to) in spoke {
                let got = units(&got.await.unwrap());
                assert!(got.is_sorted_by(|one, other| one + 1 == *other), "{got:?}");
                heard.extend(got.into_iter().filter(|number| (from..to).contains(number)));
            }
            assert_eq!(heard, (0..end).collect::<Vec<_>>());
        });
    }
}
