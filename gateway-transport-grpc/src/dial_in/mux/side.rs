//! What differs between the two ends.

use crate::proto::runner_gateway::{
    Data, End, Error, GatewayFrame, GoAway, RequestHead, Reset, ResetReason, ResponseHead, RunnerFrame,
    WindowUpdate, gateway_frame, runner_frame,
};

/// One end of a connection: which frames it reads and writes, and who begins streams.
pub(crate) trait Side: Sized + Send + 'static {
    /// What is read.
    type In: prost::Message + Default;
    /// What is written.
    type Out: prost::Message + Send;
    /// How the peer's half of a stream begins.
    type Head: Send;
    /// What the peer says that belongs to no stream.
    type Word: Send;

    /// Whether this end begins the streams.
    const BEGINS: bool;
    /// Why a stream ends whose handle is dropped.
    const DROPPED: ResetReason;

    fn sort(frame: Self::In) -> Sorted<Self>;
    fn frame(common: Common) -> Self::Out;
}

/// A frame by what is done with it.
pub(crate) enum Sorted<S: Side> {
    Word(S::Word),
    Head {
        id: u64,
        end: bool,
        head: S::Head,
    },
    Common(Common),
    /// Of a kind that is not known here.
    Unknown,
}

/// Frames that both ends send.
pub(crate) enum Common {
    Data(Data),
    End(End),
    Reset(Reset),
    WindowUpdate(WindowUpdate),
    GoAway,
    Error(Error),
}

/// The gateway's end.
pub(crate) enum GatewaySide {}

impl Side for GatewaySide {
    type In = RunnerFrame;
    type Out = GatewayFrame;
    type Head = ResponseHead;
    type Word = runner_frame::Frame;

    const BEGINS: bool = true;
    const DROPPED: ResetReason = ResetReason::Cancelled;

    fn sort(frame: RunnerFrame) -> Sorted<Self> {
        use runner_frame::Frame;
        match frame.frame {
            None => Sorted::Unknown,
            Some(Frame::ResponseHead(head)) => Sorted::Head { id: head.stream_id, end: head.end, head },
            Some(Frame::ResponseBody(data)) => Sorted::Common(Common::Data(data)),
            Some(Frame::ResponseEnd(end)) => Sorted::Common(Common::End(end)),
            Some(Frame::Reset(reset)) => Sorted::Common(Common::Reset(reset)),
            Some(Frame::WindowUpdate(update)) => Sorted::Common(Common::WindowUpdate(update)),
            Some(Frame::GoAway(GoAway {})) => Sorted::Common(Common::GoAway),
            Some(Frame::Error(error)) => Sorted::Common(Common::Error(error)),
            Some(word) => Sorted::Word(word),
        }
    }

    fn frame(common: Common) -> GatewayFrame {
        use gateway_frame::Frame;
        let frame = match common {
            Common::Data(data) => Frame::RequestBody(data),
            Common::End(end) => Frame::RequestEnd(end),
            Common::Reset(reset) => Frame::Reset(reset),
            Common::WindowUpdate(update) => Frame::WindowUpdate(update),
            Common::GoAway => Frame::GoAway(GoAway {}),
            Common::Error(error) => Frame::Error(error),
        };
        GatewayFrame { frame: Some(frame) }
    }
}

/// The runner's end.
pub(crate) enum RunnerSide {}

impl Side for RunnerSide {
    type In = GatewayFrame;
    type Out = RunnerFrame;
    type Head = RequestHead;
    type Word = gateway_frame::Frame;

    const BEGINS: bool = false;
    const DROPPED: ResetReason = ResetReason::EngineLost;

    fn sort(frame: GatewayFrame) -> Sorted<Self> {
        use gateway_frame::Frame;
        match frame.frame {
            None => Sorted::Unknown,
            Some(Frame::RequestHead(head)) => Sorted::Head { id: head.stream_id, end: head.end, head },
            Some(Frame::RequestBody(data)) => Sorted::Common(Common::Data(data)),
            Some(Frame::RequestEnd(end)) => Sorted::Common(Common::End(end)),
            Some(Frame::Reset(reset)) => Sorted::Common(Common::Reset(reset)),
            Some(Frame::WindowUpdate(update)) => Sorted::Common(Common::WindowUpdate(update)),
            Some(Frame::GoAway(GoAway {})) => Sorted::Common(Common::GoAway),
            Some(Frame::Error(error)) => Sorted::Common(Common::Error(error)),
            Some(word) => Sorted::Word(word),
        }
    }

    fn frame(common: Common) -> RunnerFrame {
        use runner_frame::Frame;
        let frame = match common {
            Common::Data(data) => Frame::ResponseBody(data),
            Common::End(end) => Frame::ResponseEnd(end),
            Common::Reset(reset) => Frame::Reset(reset),
            Common::WindowUpdate(update) => Frame::WindowUpdate(update),
            Common::GoAway => Frame::GoAway(GoAway {}),
            Common::Error(error) => Frame::Error(error),
        };
        RunnerFrame { frame: Some(frame) }
    }
}
