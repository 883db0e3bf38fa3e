//! The NRI plugin against a runtime, over a real socket.

mod containers;
mod hand_written;
mod oracle;
mod strict;
mod world;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use driver::attach::{AttachError, Command};
use tests::runtime::{CallError, EventStyle, HookError, Netns, Options, Runtime};
use tokio::time::timeout;

use self::world::{OWN_NETNS, SOON, World, ids, record, sandbox};

const SERVICE: &str = "nri.pkg.api.v1alpha1.Plugin";

async fn a_pod_comes_and_goes(style: EventStyle) {
    let mut world =
        World::settled(Options { style, ..Options::default() }, vec![record("pod-1")]).await;
    assert_eq!(world.tell(Runtime::plugins), ["10-weir.dev"]);

    let run = world.run(&sandbox("s1", "pod-1"));

    assert_eq!((run.id.as_str(), run.pod.uid.as_str()), ("s1", "pod-1"));
    assert_eq!(run.pod.to_string(), "default/pod-of-s1");
    let netns = run.netns.expect("it has one");
    assert_eq!(netns.path, Path::new(OWN_NETNS));
    let reported = timeout(SOON, world.attached.recv()).await.unwrap().unwrap();
    assert_eq!(reported, [record("pod-1")]);

    let stop = world.detach(|runtime| runtime.stop_pod_sandbox("s1"));
    assert_eq!((stop.id.as_str(), stop.netns), ("s1", Some(netns)));
    let remove = world.detach(|runtime| runtime.remove_pod_sandbox("s1"));
    assert_eq!(remove.id, "s1");
    assert!(*world.connection.borrow());
    assert_eq!(world.tell(Runtime::ends), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_comes_and_goes_by_state_changes() {
    a_pod_comes_and_goes(EventStyle::StateChange).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_comes_and_goes_by_dedicated_calls() {
    a_pod_comes_and_goes(EventStyle::Dedicated).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_with_nothing_prepared_costs_the_worker_nothing() {
    let mut world = World::settled(Options::default(), vec![record("pod-1")]).await;
    let mut other = sandbox("s2", "pod-2");
    other.netns = Some("/nowhere/that/could/be/looked/at".into());

    let took = world.tell(|runtime| runtime.run_pod_sandbox(&other)).unwrap();
    world.tell(|runtime| runtime.stop_pod_sandbox("s2")).unwrap();
    world.tell(|runtime| runtime.remove_pod_sandbox("s2")).unwrap();

    assert!(took < Duration::from_millis(200), "{took:?}");
    assert!(world.has_no_command());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_namespace_is_remembered_for_a_stop_that_does_not_name_it() {
    let options = Options { netns_at_stop: Netns::Forgotten, ..Options::default() };
    let mut world = World::settled(options, vec![record("pod-1")]).await;
    let run = world.run(&sandbox("s1", "pod-1"));

    let stop = world.detach(|runtime| runtime.stop_pod_sandbox("s1"));

    assert!(stop.netns.is_some());
    assert_eq!(stop.netns, run.netns);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_namespace_is_remembered_from_synchronize_too() {
    let options = Options { netns_at_stop: Netns::Forgotten, ..Options::default() };
    let mut world = World::start(options, &[sandbox("s1", "pod-1")]).await;
    world.records.send_replace(Arc::new(vec![record("pod-1")]));
    let listed = world.synchronize().await;

    let stop = world.detach(|runtime| runtime.stop_pod_sandbox("s1"));

    assert_eq!(stop, listed[0]);
    assert!(stop.netns.is_some());
}

/// Kubelet stops dead sandboxes again when it collects them, long after the pod got a new one.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_stop_of_an_earlier_sandbox_leaves_the_pods_next_one_alone() {
    let options = Options { netns_at_stop: Netns::Forgotten, ..Options::default() };
    let mut world = World::settled(options, vec![record("pod-1")]).await;
    world.runtime.add_running(sandbox("first", "pod-1"));
    world.run(&sandbox("second", "pod-1"));

    world.tell(|runtime| runtime.stop_pod_sandbox("first")).unwrap();

    assert!(world.has_no_command());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_on_the_host_network_reaches_the_worker_without_namespace() {
    let mut world = World::settled(Options::default(), vec![record("pod-1")]).await;
    let mut on_host = sandbox("s1", "pod-1");
    (on_host.netns, on_host.pid) = (None, std::process::id());
    let pod = record("pod-1").pod;

    let (told, asked) = world.while_worker(
        |runtime| runtime.run_pod_sandbox(&on_host),
        |command| match command {
            Command::Attach { sandbox, answer, .. } => {
                answer.send(Err(AttachError::HostNetwork { pod })).unwrap();
                sandbox
            }
            other => panic!("not an Attach: {other:?}"),
        },
    );

    assert_eq!(asked.netns, None);
    let HookError::Plugin(message) = told.unwrap_err() else { panic!("not an error of ours") };
    assert!(message.contains("uses the host network"), "{message}");
    assert!(world.attached.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_is_gone_fails_the_sandbox() {
    let mut world = World::settled(Options::default(), vec![record("pod-1")]).await;
    let mut gone = sandbox("s1", "pod-1");
    gone.netns = Some("/nowhere/net".into());

    let (told, ()) = world.while_worker(
        |runtime| runtime.run_pod_sandbox(&gone),
        |command| match command {
            // Of the stop that follows.
            Command::Detach { answer, .. } => answer.send(Vec::new()).unwrap(),
            other => panic!("tried all the same: {other:?}"),
        },
    );

    let HookError::Plugin(message) = told.unwrap_err() else { panic!("not an error of ours") };
    assert!(message.contains("/nowhere/net"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_too_slow_fails_the_sandbox_in_time_and_what_it_did_is_undone() {
    let request_timeout = Duration::from_millis(1200);
    for announces_timeouts in [true, false] {
        let options = Options { request_timeout, announces_timeouts, ..Options::default() };
        let mut world = World::settled(options, vec![record("pod-1")]).await;

        let started = Instant::now();
        let (told, (deadline, answer)) = world.while_worker(
            |runtime| runtime.run_pod_sandbox(&sandbox("s1", "pod-1")),
            |command| match command {
                Command::Attach { deadline, answer, .. } => (deadline, answer),
                other => panic!("not an Attach: {other:?}"),
            },
        );

        let took = started.elapsed();
        let HookError::Plugin(message) = told.unwrap_err() else { panic!("the runtime gave up") };
        assert!(message.contains("not attached within"), "{message}");
        assert!(took > Duration::from_millis(500), "gave up after {took:?}");
        assert!(deadline < started + took);
        assert!(*world.connection.borrow());

        answer.send(Ok(vec![record("pod-1")])).unwrap();
        match world.command().await {
            Command::Detach { sandbox, .. } => {
                assert_eq!(sandbox.id, "s1");
                assert!(sandbox.netns.is_some());
            }
            other => panic!("not a Detach: {other:?}"),
        }
        assert!(world.attached.try_recv().is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_is_answered_well_even_if_the_worker_does_not_answer() {
    let options = Options { request_timeout: Duration::from_millis(1200), ..Options::default() };
    let mut world = World::settled(options, vec![record("pod-1")]).await;
    world.run(&sandbox("s1", "pod-1"));

    let (told, _unanswered) =
        world.while_worker(|runtime| runtime.stop_pod_sandbox("s1"), |command| command);

    told.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_pods_are_listed_in_parts_of_any_size() {
    let pods: Vec<_> =
        (0..500).map(|nth| sandbox(&format!("s{nth}"), &format!("p{nth}"))).collect();
    // Parts of 1 pod, of several times 4096 bytes, and of more than 256 KiB.
    for (pods_per_part, ballast) in [(1, 10), (20, 500), (500, 600), (500, 6000)] {
        let options = Options { pods_per_part, ballast, ..Options::default() };

        let mut world = World::start(options, &pods).await;

        // It is connected although the worker has not answered yet.
        let listed = world.synchronize().await;
        assert_eq!(ids(&listed).len(), 500, "{pods_per_part} pods a part");
        assert!(listed.iter().all(|sandbox| sandbox.netns.is_some()));
        assert_eq!(world.tell(Runtime::ends), [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attach_waits_until_the_worker_has_seen_the_list() {
    let mut world = World::start(Options::default(), &[]).await;
    world.records.send_replace(Arc::new(vec![record("pod-1")]));
    let Command::Synchronize { answer: listed, .. } = world.command().await else {
        panic!("not a Synchronize")
    };
    let World { runtime, commands, .. } = &mut world;

    let told = std::thread::scope(|scope| {
        let event = scope.spawn(|| runtime.run_pod_sandbox(&sandbox("s1", "pod-1")));
        std::thread::sleep(Duration::from_millis(100));
        assert!(commands.try_recv().is_err(), "the attach did not wait");
        listed.send(()).unwrap();
        match tokio::task::block_in_place(|| commands.blocking_recv()).unwrap() {
            Command::Attach { answer, .. } => answer.send(Ok(Vec::new())).unwrap(),
            other => panic!("not an Attach: {other:?}"),
        }
        event.join().unwrap()
    });

    told.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_that_comes_back_is_found_and_lists_its_sandboxes_again() {
    let mut world = World::settled(Options::default(), Vec::new()).await;
    let replacement = Options { style: EventStyle::Dedicated, ..Options::default() };

    let World { runtime, socket, .. } = world;
    tokio::task::block_in_place(|| drop(runtime));
    timeout(SOON, world.connection.wait_for(|now| !*now)).await.unwrap().unwrap();
    world.runtime = Runtime::start(&socket, replacement).unwrap();
    world.runtime.add_running(sandbox("s1", "pod-1"));
    world.socket = socket;

    world.becomes_connected(true).await;
    assert_eq!(ids(&world.synchronize().await), ["s1"].into());
    world.records.send_replace(Arc::new(vec![record("pod-2")]));
    world.run(&sandbox("s2", "pod-2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_is_shut_down_registers_again() {
    let mut world = World::settled(Options::default(), Vec::new()).await;

    world.tell(Runtime::shut_plugins_down);

    world.synchronize().await;
    world.becomes_connected(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_does_not_know_is_refused_and_the_session_stays() {
    let world = World::settled(Options::default(), Vec::new()).await;
    let code = |service: &str, method: &str, payload: &[u8]| match world
        .tell(|runtime| runtime.call(service, method, payload))
    {
        Err(CallError::Refused { code, .. }) => code,
        other => panic!("{service}/{method}: {other:?}"),
    };
    assert_eq!(code(SERVICE, "ValidateContainerAdjustment", b""), 12);
    assert_eq!(code("some.other.Service", "Configure", b""), 12);
    assert_eq!(code(SERVICE, "StateChange", b"\xff"), 3);
    assert_eq!(code(SERVICE, "Synchronize", b"\x0a\x05x"), 3);
    // An event that was not asked for, and one without a pod.
    for payload in [&b"\x08\x04"[..], b"\x08\x01", b""] {
        assert_eq!(world.tell(|runtime| runtime.call(SERVICE, "StateChange", payload)), Ok(vec![]));
    }
    assert!(*world.connection.borrow());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attach_under_way_is_answered_before_the_plugin_stops() {
    let mut world = World::settled(Options::default(), vec![record("pod-1")]).await;
    let shutdown = world.shutdown.clone();

    let (told, ()) = world.while_worker(
        |runtime| runtime.run_pod_sandbox(&sandbox("s1", "pod-1")),
        |command| match command {
            Command::Attach { answer, .. } => {
                shutdown.cancel();
                std::thread::sleep(Duration::from_millis(100));
                answer.send(Ok(vec![record("pod-1")])).unwrap();
            }
            other => panic!("not an Attach: {other:?}"),
        },
    );

    told.unwrap();
    timeout(SOON, &mut world.running).await.unwrap().unwrap();
    assert!(!*world.connection.borrow());
    assert!(world.tell(|runtime| runtime.wait_for_no_plugin(SOON)));
}
