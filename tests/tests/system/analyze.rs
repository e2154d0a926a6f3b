//! Single pictures through the real host: what is found in them, what is wrong with them, and what
//! is left behind.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use ocelli_testkit::depth::rounds;
use ocelli_testkit::{DEADLINE, Ocelli, PipelineFolder, children, clip, root};
use serde_json::Value;
use tokio::time::sleep;

/// Between two looks at something that tells nobody when it changes.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

fn picture(file: &str) -> Vec<u8> {
    std::fs::read(root().join("tests/faces").join(file)).unwrap()
}

/// The first picture of a clip of JPEG pictures.
pub(crate) fn frame(file: &str) -> Vec<u8> {
    let bytes = std::fs::read(clip(file)).unwrap();
    let find = |from: usize, marker: &[u8]| {
        let found = bytes[from..].windows(marker.len()).position(|window| window == marker);
        from + found.unwrap_or_else(|| panic!("{file} has no JPEG picture"))
    };
    let begin = find(0, b"\xff\xd8\xff");
    bytes[begin..find(begin, b"\xff\xd9") + 2].to_owned()
}

/// A PNG file's signature and first chunk: what it says of its size, and no more.
fn png(width: u32, height: u32) -> Vec<u8> {
    let mut chunk = b"IHDR".to_vec();
    chunk.extend([width.to_be_bytes(), height.to_be_bytes()].concat());
    chunk.extend([8, 2, 0, 0, 0]);
    let checksum = chunk.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    });
    let parts: [&[u8]; 4] =
        [b"\x89PNG\r\n\x1a\n\0\0\0\x0d", &chunk, &(!checksum).to_be_bytes(), &[0; 64]];
    parts.concat()
}

pub(crate) async fn analyze(
    host: &Ocelli,
    path: &str,
    media_type: &str,
    body: &[u8],
) -> (u16, Value) {
    let (status, body) = host.post(&format!("/v1/analyze/{path}"), media_type, body).await;
    (status, serde_json::from_str(&body).unwrap_or_else(|_| panic!("{path}: {status}: {body}")))
}

fn list(pictures: &[&[u8]]) -> Vec<u8> {
    let mut body = Vec::new();
    for picture in pictures {
        body.extend(
            b"--xyz\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a.jpg\"\r\n\r\n",
        );
        body.extend(*picture);
        body.extend(b"\r\n");
    }
    body.extend(b"--xyz--\r\n");
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_a_list_and_a_job_give_what_the_pipeline_finds() {
    let host = Ocelli::start("").await;
    let street = frame("people-576-mjpeg.avi");
    let (status, answer) = analyze(&host, "object-detect", "image/jpeg", &street).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!((&answer["width"], &answer["height"]), (&768.into(), &576.into()), "{answer}");
    let found = answer["detections"].as_array().unwrap();
    assert!(found.iter().any(|detection| detection["label"] == "person"), "{answer}");
    assert!(answer["latency_ms"]["total"].as_f64().unwrap() > 0.0, "{answer}");

    let body = list(&[&street, b"no picture", &street]);
    let (status, listed) =
        analyze(&host, "object-detect", "multipart/form-data; boundary=xyz", &body).await;
    assert_eq!(status, 200, "{listed}");
    assert_eq!(
        listed["results"][0]["detections"], answer["detections"],
        "the same picture, the same answer"
    );
    assert_eq!(listed["results"][1]["error"]["code"], "unsupported_image", "{listed}");
    assert_eq!(listed["results"][2]["detections"], answer["detections"]);

    let (status, job) = analyze(&host, "object-detect?async=1", "image/jpeg", &street).await;
    assert_eq!(status, 202, "{job}");
    let path = format!("/v1/jobs/{}", job["id"].as_str().unwrap());
    let begun = Instant::now();
    loop {
        let job: Value = serde_json::from_str(&host.get(&path).await).unwrap();
        if job["state"] == "done" {
            assert_eq!(job["result"]["detections"], answer["detections"]);
            break;
        }
        assert!(begun.elapsed() < DEADLINE && job["state"] != "failed", "{job}");
        sleep(LOOK_AGAIN).await;
    }
    assert!(host.get("/metrics").await.contains("ocelli_analyze_pictures_total{outcome=\"ok\"} 4"));
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_gets_a_problem_with_a_code_and_the_host_goes_on() {
    let store = PipelineFolder::with(&["hostile"]);
    // The settings of the waiting worker do no harm; those of the requests do.
    // A limit that did not hold would be told as a picture that took too long.
    let config = "[analyze]\nworkers = 2\ntimeout_ms = 30000\nmax_image_mb = 2\n\
        [[analyze.pipelines]]\nname = \"hostile\"\nsettings = { do = \"huge-answer\" }\n\
        [resource_limits]\ncall_cpu_ms = 500\n";
    let host = Ocelli::start(&(config.to_owned() + &store.section())).await;
    let good = picture("none.jpg");
    let cut = &good[..good.len() / 2];
    let (large, huge) = (png(40_000, 40_000), png(u32::MAX, u32::MAX));
    type Case<'a> = (&'a str, &'a str, &'a [u8], u16, &'a [&'a str]);
    let cases: [Case<'_>; 14] = [
        ("object-detect", "image/jpeg", b"", 400, &["empty_image"]),
        ("object-detect", "image/jpeg", b"a text file", 415, &["unsupported_image"]),
        ("object-detect", "text/plain", b"a text file", 415, &["unsupported_media_type"]),
        ("object-detect", "image/jpeg", b"\xff\xd8\xff", 422, &["damaged_image"]),
        ("object-detect", "image/jpeg", cut, 422, &["damaged_image"]),
        ("object-detect", "image/png", &large, 413, &["image_too_large"]),
        ("object-detect", "image/png", &huge, 0, &["image_too_large", "damaged_image"]),
        ("nothing-at-all", "image/jpeg", &good, 404, &["unknown_pipeline"]),
        ("..%2Fobject-detect", "image/jpeg", &good, 404, &["unknown_pipeline"]),
        (
            "object-detect?settings=%7B%22score%22%3A9%7D",
            "image/jpeg",
            &good,
            422,
            &["invalid_settings"],
        ),
        (
            "hostile?settings=%7B%22do%22%3A%22panic%22%7D",
            "image/jpeg",
            &good,
            500,
            &["pipeline_trapped"],
        ),
        (
            "hostile?settings=%7B%22do%22%3A%22infinite-loop%22%7D",
            "image/jpeg",
            &good,
            500,
            &["pipeline_trapped"],
        ),
        (
            "hostile?settings=%7B%22do%22%3A%22nan-score%22%7D",
            "image/jpeg",
            &good,
            500,
            &["pipeline_trapped"],
        ),
        (
            "hostile?settings=%7B%22do%22%3A%22error-on-every-frame%22%7D",
            "image/jpeg",
            &good,
            500,
            &["pipeline_failed"],
        ),
    ];
    let before = host.process().pid;
    for (path, media_type, body, status, codes) in cases {
        let begun = Instant::now();
        let (found, answer) = analyze(&host, path, media_type, body).await;
        let code = answer["code"].as_str().unwrap_or_default();
        println!("{path}: {found} {code} in {:.0?}: {:.120}", begun.elapsed(), answer["detail"]);
        assert!(
            codes.contains(&code) && (status == 0 || status == found),
            "{path}: {found}: {answer}"
        );
    }
    let (status, answer) = analyze(&host, "object-detect", "image/jpeg", &good).await;
    assert_eq!((status, host.process().pid), (200, before), "{answer}");
    host.get("/healthz").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_pictures_sixteen_at_once_leave_no_process_behind() {
    let host = Ocelli::start("[analyze]\nworkers = 4\nidle_s = 1\n").await;
    let pid = host.process().pid;
    let before = children(pid).len();
    let street = frame("people-576-mjpeg.avi");
    let begun = Instant::now();
    let one_after_the_other = async |count: usize| {
        let mut answers = Vec::new();
        for _ in 0..count {
            let (status, answer) = analyze(&host, "object-detect", "image/jpeg", &street).await;
            assert_eq!(status, 200, "{answer}");
            answers.push(answer["detections"].clone());
        }
        answers
    };
    let pictures = rounds(200);
    let of_each = |client: usize| (client..pictures).step_by(16).len();
    let answers = join_all((0..16).map(|client| one_after_the_other(of_each(client)))).await;
    let answers: Vec<Value> = answers.into_iter().flatten().collect();
    println!("{} pictures in {:.1} s", answers.len(), begun.elapsed().as_secs_f64());
    assert_eq!(answers.len(), pictures);
    assert!(answers.iter().all(|answer| *answer == answers[0]), "one picture, one answer");
    let begun = Instant::now();
    while children(pid).len() > before {
        assert!(begun.elapsed() < DEADLINE, "{} processes, {before} before", children(pid).len());
        sleep(LOOK_AGAIN).await;
    }
}
