//! Our ttrpc against another implementation of it: the crate `ttrpc`, both ways, over our mux on one
//! side and one written here on the other.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use driver::nri::mux::{self, ConnId};
use driver::nri::ttrpc::{Answer, Call, CallError, Client, Code, serve};
use futures::{StreamExt as _, stream};
use prost::Message as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use ttrpc::asynchronous::transport::{Listener, Socket};
use ttrpc::asynchronous::{MethodHandler, Server, Service, TtrpcContext};

const SECOND: Duration = Duration::from_secs(1);
const SIZES: [usize; 6] = [0, 1, 4070, 4096, 70_000, 3 << 20];

/// Two byte streams, 1 and 2, over `socket`. Each piece that is written becomes a frame.
fn divide(socket: UnixStream) -> [DuplexStream; 2] {
    let (mut reader, mut writer) = socket.into_split();
    let (frames, mut outbox) = mpsc::channel::<(u32, Vec<u8>)>(16);
    tokio::spawn(async move {
        while let Some((conn, payload)) = outbox.recv().await {
            let length = u32::try_from(payload.len()).unwrap();
            writer.write_u32(conn).await.unwrap();
            writer.write_u32(length).await.unwrap();
            writer.write_all(&payload).await.unwrap();
        }
    });
    let (near, far): (Vec<_>, Vec<_>) = [1, 2].map(|_| duplex(1 << 16)).into_iter().unzip();
    let mut inward: Vec<WriteHalf<DuplexStream>> = Vec::new();
    for (conn, far) in (1..).zip(far) {
        let (from, to) = split(far);
        inward.push(to);
        tokio::spawn(cut(conn, from, frames.clone()));
    }
    tokio::spawn(async move {
        while let Ok(conn) = reader.read_u32().await {
            let length = reader.read_u32().await.unwrap();
            let mut payload = vec![0; length as usize];
            reader.read_exact(&mut payload).await.unwrap();
            inward[conn as usize - 1].write_all(&payload).await.unwrap();
        }
    });
    near.try_into().unwrap()
}

async fn cut(conn: u32, mut from: ReadHalf<DuplexStream>, frames: mpsc::Sender<(u32, Vec<u8>)>) {
    let mut buffer = vec![0; 4096];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        frames.send((conn, buffer[..length].to_vec())).await.unwrap();
    }
}

struct Echo;

impl MethodHandler for Echo {
    fn handler<'a, 'f>(
        &'a self,
        _context: TtrpcContext,
        request: ttrpc::Request,
    ) -> Pin<Box<dyn Future<Output = ttrpc::Result<ttrpc::Response>> + Send + 'f>>
    where
        'a: 'f,
        Self: 'f,
    {
        Box::pin(async move {
            let mut response = ttrpc::Response::new();
            response.payload = request.payload;
            Ok(response)
        })
    }
}

fn request(method: &str, payload: Vec<u8>, limit: Duration) -> ttrpc::Request {
    let mut request = ttrpc::Request::new();
    request.service = "echo.Service".into();
    request.method = method.into();
    request.payload = payload;
    request.timeout_nano = i64::try_from(limit.as_nanos()).unwrap();
    request
}

async fn echo(call: Call) -> Answer {
    match call.method.as_str() {
        "Echo" => Answer::with(&call.payload),
        "Slow" => {
            tokio::time::sleep(60 * SECOND).await;
            Answer::empty()
        }
        method => Answer::refuse(Code::Unimplemented, format!("no {method}")),
    }
}

#[tokio::test]
async fn our_server_answers_its_client_and_its_server_answers_ours() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (trunk, [plugin, runtime]) = mux::open(ours, [ConnId::PLUGIN, ConnId::RUNTIME]);
    tokio::spawn(trunk.run());
    tokio::spawn(async move { serve(plugin, &TaskTracker::new(), echo).await });
    let (client, answers) = Client::open(runtime);
    tokio::spawn(answers);
    let [to_plugin, from_plugin] = divide(theirs);

    let their_client = ttrpc::asynchronous::Client::new(Socket::new(to_plugin));
    for size in SIZES {
        let payload = vec![5; size];
        let response = their_client.request(request("Echo", payload.clone(), 20 * SECOND)).await;
        let echo = Vec::<u8>::decode(&response.unwrap().payload[..]).unwrap();
        assert!(echo == payload, "{size} bytes");
    }
    let refused = their_client.request(request("Else", Vec::new(), SECOND)).await.unwrap_err();
    let ttrpc::Error::RpcStatus(status) = refused else { panic!("{refused}") };
    assert_eq!((status.code(), status.message()), (ttrpc::Code::UNIMPLEMENTED, "no Else"));
    let late = their_client.request(request("Slow", Vec::new(), SECOND / 20)).await;
    assert!(late.is_err());
    their_client.request(request("Echo", Vec::new(), SECOND)).await.unwrap();

    let methods: HashMap<String, Box<dyn MethodHandler + Send + Sync>> =
        HashMap::from([("Echo".to_owned(), Box::new(Echo) as _)]);
    let service = Service { methods, streams: HashMap::new() };
    // The server must not see the stream of connections end.
    let one = stream::once(async move { Ok::<_, std::io::Error>(from_plugin) });
    let mut server = Server::new()
        .add_listener(Listener::new(one.chain(stream::pending())))
        .register_service(HashMap::from([("echo.Service".to_owned(), service)]));
    server.start().await.unwrap();
    for size in SIZES {
        let payload = vec![6; size];
        let echo = client.call("echo.Service", "Echo", payload.clone(), 20 * SECOND).await;
        assert!(echo.unwrap() == payload, "{size} bytes");
    }
    let refused = client.call("echo.Service", "Else", Vec::new(), SECOND).await.unwrap_err();
    assert!(matches!(refused, CallError::Refused { code: 12, .. }), "{refused}");
}
