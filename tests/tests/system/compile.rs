//! The compiler: a component whose author makes it compile for minutes costs nobody but its sender.

use std::time::Duration;

use ocelli_testkit::{Ocelli, PipelineFolder, children, clip, guest};
use tokio::time::{Instant, sleep, timeout};

/// Locals and loops of a component that takes minutes: the compiler notes each local in each loop.
const LOCALS: u32 = 20_000;
const LOOPS: u32 = 4000;

/// How long a small component may take beside those, on a busy machine. Behind one of them it would
/// wait for two minutes and more.
const SOON: Duration = Duration::from_secs(60);

fn number(mut value: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// A section of a module or a component.
fn section(kind: u8, content: &[u8]) -> Vec<u8> {
    [&[kind], number(content.len() as u32).as_slice(), content].concat()
}

/// A good component with a module that it does not use: one function of loops in loops, each of
/// which adds one local to another.
fn bomb(component: &[u8], seed: u32) -> Vec<u8> {
    const I32: u8 = 0x7f;
    const LOOP: [u8; 2] = [0x03, 0x40];
    let [get, add, tee, branch_if, end] = [0x20, 0x6a, 0x22, 0x0d, 0x0b];
    let mut code = [number(1), number(LOCALS), vec![I32]].concat();
    for index in 0..LOOPS {
        let (one, other) = (number(index % LOCALS), number((index * 7919 + seed) % LOCALS));
        code.extend(LOOP);
        code.extend([&[get], one.as_slice(), &[get], &other, &[add, tee], &one].concat());
        code.extend([branch_if, 0]);
    }
    code.extend(vec![end; LOOPS as usize + 1]);
    let function = [number(1), number(code.len() as u32), code].concat();
    let module = [
        b"\0asm\x01\0\0\0".to_vec(),
        section(1, &[1, 0x60, 0, 0]),
        section(3, &[1, 0]),
        section(10, &function),
    ];
    [component, &section(1, &module.concat())].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn components_that_compile_for_minutes_hold_up_their_sender_alone() {
    let motion = std::fs::read(guest("motion")).unwrap();
    let store = PipelineFolder::with(&[]);
    // Of other bytes than any before it: no cache has it.
    let name = format!("\x05small{:?}", std::time::SystemTime::now());
    store.put("small", &[motion.as_slice(), &section(0, name.as_bytes())].concat());
    let host = Ocelli::start(&store.section()).await;
    let bombs = [1, 2, 3].map(|seed| bomb(&motion, seed));
    let sent = bombs.iter().map(|bomb| host.put("/v1/pipelines/bomb", bomb));
    let sent = futures_util::future::join_all(sent);
    let small = async {
        let compiles =
            || children(host.process().pid).iter().any(|child| child.name == "ocelli-compile");
        while !compiles() {
            sleep(Duration::from_millis(20)).await;
        }
        let begun = Instant::now();
        let source = format!("file:{}", clip("people-576-high-b3.mp4").display());
        host.edit_config(&format!(
            "{}[[cameras]]\nid = \"cam\"\nsource = {source:?}\npipeline = \"small\"\n",
            store.section()
        ));
        host.wait_for_session("cam", |session| session["results"] != 0).await;
        println!("a small component ran after {:.1} s", begun.elapsed().as_secs_f64());
        assert!(compiles(), "the others have ended");
    };
    tokio::select! {
        answers = sent => panic!("the bombs are none: {answers:?}"),
        passed = timeout(SOON, small) => passed.expect("it waits for the others"),
    }
}
