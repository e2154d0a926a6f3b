//! Answers that the host gives to a worker in the place of an inference process.

use std::os::fd::AsFd;

use ocelli_protocol::inference::{
    ErrorCode, InferenceRequest, InferenceResponse, PacketError, send,
};
use tokio::task::AbortHandle;

use super::SessionEndpoint;
use crate::util::packet_socket::PacketSocket;

/// Answers one request with an error. A stuck worker is left to its session's health check.
pub(super) fn refuse(place: &SessionEndpoint, id: u64, code: ErrorCode, message: String) {
    let answer = InferenceResponse::Failed { id, code, message };
    if let Err(error) = send(place.socket.as_fd(), &answer)
        && !matches!(error, PacketError::Closed)
    {
        tracing::warn!(target: "ocelli::inference", "a worker cannot be answered: {error}");
    }
}

/// Answers every request of a session with an error, until this is dropped.
pub(super) struct Refuser(AbortHandle);

impl Refuser {
    /// To be called within a tokio runtime.
    pub(super) fn start(place: &SessionEndpoint, message: String) -> std::io::Result<Self> {
        let socket = PacketSocket::new(place.socket.try_clone()?)?;
        let task = tokio::spawn(async move {
            while let Ok(request) = socket.receive::<InferenceRequest>().await {
                let (id, code) = (request.id(), ErrorCode::RuntimeError);
                let answer = InferenceResponse::Failed { id, code, message: message.clone() };
                if socket.send(&answer, &[]).await.is_err() {
                    return;
                }
            }
        });
        Ok(Self(task.abort_handle()))
    }
}

impl Drop for Refuser {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ocelli_protocol::inference::{MAX_PACKET, packet_pair, receive};

    #[tokio::test]
    async fn a_refused_session_gets_an_answer_to_every_request() {
        let (ours, theirs) = packet_pair().unwrap();
        let memory = rustix::fs::memfd_create("memory", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let place = SessionEndpoint { socket: theirs, memory };
        let _refuser = Refuser::start(&place, "poison session: no".into()).unwrap();
        let answers = tokio::task::spawn_blocking(move || {
            let mut buffer = vec![0; MAX_PACKET];
            [1, 2].map(|id| {
                send(ours.as_fd(), &InferenceRequest::Open { id, model: "eye".into() }).unwrap();
                receive::<InferenceResponse>(ours.as_fd(), &mut buffer).unwrap()
            })
        });
        for (id, answer) in (1..).zip(answers.await.unwrap()) {
            let message = "poison session: no".to_owned();
            assert_eq!(
                answer,
                InferenceResponse::Failed { id, code: ErrorCode::RuntimeError, message }
            );
        }
    }
}
