//! Faces and their embeddings: CenterFace finds the faces of a frame, each is brought into one
//! position by its landmarks, and FaceRes makes a vector of length 1 of it. The cosine of two
//! vectors says how alike two faces are.
//!
//! A frame goes through the detector once; then each face is cut from the frame itself, at full
//! resolution, and embedded. Faces are embedded one after the other: the model takes one at a time,
//! and on a processor a batch would gain nothing. All that depends on numbers alone ([`report`],
//! [`settings`] and the author's crate) is tested natively.

pub mod report;
pub mod settings;

use ocelli_sdk::centerface::{self, Detector, Face};
use ocelli_sdk::faceres::{self, Embedder};
use ocelli_sdk::rate_limiter::RateLimiter;
use ocelli_sdk::{
    Description, Frame, ModelNeed, Output, Pipeline, Tensor, TensorSpec, align, export_pipeline,
    log,
};

use settings::{Alignment, Settings};

/// The pipeline of one camera.
pub struct FaceEmbed {
    settings: Settings,
    rate_limiter: RateLimiter,
    detector: Detector,
    embedder: Embedder,
    face: TensorSpec,
}

impl Pipeline for FaceEmbed {
    fn describe() -> Description {
        let side = i64::from(faceres::SIZE);
        let need = |name: &str, input: &str, shape| ModelNeed {
            name: name.into(),
            inputs: vec![(input.into(), shape)],
        };
        Description {
            name: env!("CARGO_PKG_NAME").into(),
            version: env!("CARGO_PKG_VERSION").into(),
            models: vec![
                need(centerface::MODEL, centerface::INPUT, vec![1, 3, -1, -1]),
                need(faceres::MODEL, faceres::INPUT, vec![1, 3, side, side]),
            ],
            settings_schema: ocelli_sdk::settings::schema::<Settings>().to_string(),
        }
    }

    fn new(json: &str) -> Result<Self, String> {
        let settings: Settings = ocelli_sdk::settings::read(json)?;
        let detector = Detector::load(centerface::MODEL, settings.detector_size)?;
        let embedder = Embedder::load(faceres::MODEL)?;
        let [width, height] = settings.detector_size;
        log::info("init", &format!("faces at {width} x {height} pixels, score {}", settings.score));
        let rate_limiter = RateLimiter::new(settings.max_results_per_second);
        Ok(Self { settings, rate_limiter, detector, embedder, face: faceres::input() })
    }

    fn process(&mut self, frame: &Frame) -> Result<Output, String> {
        if !self.rate_limiter.is_due(frame.presentation_time()) {
            return Ok(Output::skipped());
        }
        let faces = self.detector.faces(frame, None, self.settings.score, self.settings.iou)?;
        let faces = faces.into_iter().filter(|face| self.settings.is_large_enough(face));
        let mut detections = Vec::new();
        for face in faces.take(self.settings.max_faces) {
            let (tensor, alignment) = self.cut(frame, &face)?;
            let reading = self.embedder.read(tensor)?;
            detections.push(report::detection(
                &face,
                alignment,
                reading,
                self.settings.gender_and_age,
            ));
        }
        Ok(Output::found(detections))
    }
}

impl FaceEmbed {
    /// The tensor of a face, and how it was made: landmarks that make no face leave the box.
    fn cut(&self, frame: &Frame, face: &Face) -> Result<(Tensor, Alignment), String> {
        if self.settings.alignment == Alignment::FivePoint
            && let Some(to_frame) = align::face_to_frame(&face.landmarks, faceres::SIZE)
        {
            let tensor = frame.warp(to_frame, self.face).map_err(|e| e.to_string())?;
            return Ok((tensor, Alignment::FivePoint));
        }
        let region = faceres::crop(&face.bbox).into();
        let (tensor, _) = frame.tensor(Some(region), self.face).map_err(|e| e.to_string())?;
        Ok((tensor, Alignment::Box))
    }
}

export_pipeline!(FaceEmbed);
