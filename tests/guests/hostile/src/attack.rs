//! What the setting `do` may say.

use serde::Deserialize;

/// One kind of harm, done in `process` from the first frame on where nothing else is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Attack {
    /// Never returns and uses all of a core.
    InfiniteLoop,
    /// The same in `init`.
    LoopInInit,
    /// Sleeps for days in a call to the host.
    Sleep,
    /// The same in `init`.
    SleepInInit,
    /// Sleeps for a short time, again and again, and never returns.
    Naps,
    /// Allocates until there is no more.
    MemoryBomb,
    /// Recursion without end: the engine's stack.
    StackOverflow,
    /// Recursion without end with large local variables: the component's own stack, which lies in
    /// linear memory.
    DeepFrames,
    /// Asks for a picture of 2^20 x 2^20 pixels.
    HugeTensor,
    /// Makes a tensor of 2^40 elements out of four bytes.
    HugeTensorData,
    /// Asks for as many random bytes as a number can say.
    HugeRandom,
    /// Uses a handle that it was never given.
    UnknownHandle,
    /// Uses a handle that it has dropped.
    DroppedHandle,
    /// Never drops a tensor.
    LeakTensors,
    /// Never drops an encoded picture.
    LeakImages,
    /// Ten thousand events for each frame.
    ManyEvents,
    /// Ten thousand detections for each frame.
    ManyDetections,
    /// A hundred pictures for each frame.
    ManyAttachments,
    /// One event of a megabyte: more than one may have, less than a frame may have.
    LargeEvent,
    /// One event of 100 MB.
    HugeEvent,
    /// A thousand detections that share one text of a megabyte: a gigabyte if each is copied.
    SharedText,
    /// A score that is not a number.
    NanScore,
    /// An event whose data is no JSON.
    NotJson,
    /// An event whose data is nested deeper than a recursive parser's stack.
    DeepJson,
    /// Thousands of lines for each frame, by way of the log and of standard error.
    LogFlood,
    /// One line of 50 MB.
    HugeLogLine,
    /// Answers a command with 100 MB.
    HugeAnswer,
    /// Panics with a message.
    Panic,
    /// Does nothing wrong until frame 50, then traps.
    TrapOnFrame50,
    /// Traps in `init`.
    TrapInInit,
    /// Returns an error for each frame.
    ErrorOnEveryFrame,
}
