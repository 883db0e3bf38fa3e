//! What providers have said, for whoever asks now.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::join_all;
use k8s_openapi::api::resource::v1::ResourceClaim;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::call::Caller;
use super::grants::{Grant, Granting, Grants};
use super::server::{Round, Said, Server};
use super::{Identity, ProviderError, releasing};
use crate::attach::Worker;
use crate::inventory::Inventory;
use crate::model::{ClaimUid, Device, DeviceName, ProviderRule, ShareId};
use crate::sys::disk::on_disk;

const PROFILE: &str = "/GetProfileConfig";

/// How long the first publication waits for providers.
const FIRST: Duration = Duration::from_secs(3);
/// How long to wait for more after new devices have come.
const SETTLE: Duration = Duration::from_millis(500);
/// That pause doubles with each failure, up to this.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// All providers of this node. Clones share everything.
#[derive(Clone)]
pub struct Providers(Arc<Parts>);

struct Parts {
    driver: String,
    /// Empty until it is known whom to ask.
    servers: OnceLock<Vec<Server>>,
    known: watch::Sender<Known>,
    employed: watch::Sender<bool>,
    grants: Grants,
}

/// What each provider said of each device.
type Known = Arc<Vec<BTreeMap<DeviceName, Said>>>;

impl Providers {
    /// Reads what is still to be given back. Asks nobody before [`Self::employ`].
    ///
    /// # Errors
    ///
    /// [`ProviderError::Record`].
    pub fn open(driver: &str, state_dir: &Path) -> Result<Self, ProviderError> {
        Ok(Self(Arc::new(Parts {
            driver: driver.to_owned(),
            servers: OnceLock::new(),
            known: watch::channel(Known::default()).0,
            employed: watch::channel(false).0,
            grants: Grants::open(state_dir)?,
        })))
    }

    /// Takes on these, once; those of a second call are not.
    ///
    /// Answers when all have spoken of these devices, at the latest after three seconds: whoever is
    /// slower is heard later.
    pub async fn employ(&self, rules: &[ProviderRule], devices: &[Device]) {
        let servers: Vec<_> = rules.iter().cloned().map(Server::new).collect();
        self.0.known.send_replace(Arc::new(vec![BTreeMap::new(); servers.len()]));
        if self.0.servers.set(servers).is_err() {
            return;
        }
        let rounds = (0..self.servers().len()).map(|nth| self.round(nth, devices, devices).boxed());
        let first = timeout(FIRST, join_all(rounds)).await;
        self.0.employed.send_replace(true);
        if first.is_err() {
            tracing::warn!("publishing begins without what slow providers say");
        }
    }

    /// Returns when it is known whom to ask.
    pub(super) async fn employed(&self) {
        let _ = self.0.employed.subscribe().wait_for(|is_so| *is_so).await;
    }

    fn servers(&self) -> &[Server] {
        self.0.servers.get().map_or(&[], Vec::as_slice)
    }

    /// Returns when something is known that was not when the last of these returned to whoever asks;
    /// keep what [`Self::listen`] answers, and wait for its changes.
    pub fn listen(&self) -> impl Future<Output = ()> + Send + use<> + Unpin {
        let mut known = self.0.known.subscribe();
        Box::pin(async move {
            let _ = known.changed().await;
        })
    }

    /// Adds to the devices what is known of them. Of two providers that say different things the later
    /// has the last word.
    pub fn fill(&self, devices: &mut [Device]) {
        let known = self.0.known.borrow().clone();
        for device in devices {
            for said in known.iter().filter_map(|said| said.get(&device.name)) {
                device.provided.extend(said.attributes.clone());
            }
        }
    }

    /// What lies below everything that class and claim say of a device.
    pub fn config_of(&self, device: &DeviceName) -> Option<Value> {
        let known = self.0.known.borrow().clone();
        known.iter().rev().find_map(|said| said.get(device)?.config.clone())
    }

    /// Keeps asking, and gives back what claims no longer need, until `shutdown`.
    pub async fn run(self, inventory: Inventory, worker: Worker, shutdown: CancellationToken) {
        let work = async {
            let releasing = releasing::run(&self, &worker);
            let asking = async {
                // Whom to ask is known later.
                self.employed().await;
                let all = 0..self.servers().len();
                join_all(all.map(|nth| self.ask(nth, &inventory).boxed())).await
            };
            tokio::join!(releasing, asking);
        };
        let _ = shutdown.run_until_cancelled(work).await;
    }

    /// Asks one provider again and again: after its time, and when there are devices that it has not
    /// been asked about.
    async fn ask(&self, nth: usize, inventory: &Inventory) {
        let mut changes = inventory.watch();
        let refresh = self.servers().get(nth).map_or(FIRST, |server| server.rule.refresh);
        let is_new = |device: &Device| {
            let known = self.0.known.borrow();
            known.get(nth).is_none_or(|said| !said.contains_key(&device.name))
        };
        let (mut all_at, mut pause) = (Instant::now() + refresh, SETTLE);
        loop {
            // It may have been too slow for the first publication.
            let news = async {
                while !inventory.devices().iter().any(is_new) {
                    if changes.changed().await.is_err() {
                        return std::future::pending::<()>().await;
                    }
                }
                sleep(pause).await;
            };
            if timeout_at(all_at, news).await.is_err() {
                let devices = inventory.devices();
                self.round(nth, &devices, &devices).await;
                all_at = Instant::now() + refresh;
                continue;
            }
            let devices = inventory.devices();
            let new: Vec<_> = devices.iter().filter(|device| is_new(device)).cloned().collect();
            let is_whole = self.round(nth, &new, &devices).await;
            pause = if is_whole { SETTLE } else { (pause * 2).min(LONGEST_PAUSE) };
        }
    }

    /// Asks one provider about devices, which are some of `all`; whether it had something to say of
    /// each.
    async fn round(&self, nth: usize, devices: &[Device], all: &[Device]) -> bool {
        let Some(server) = self.servers().get(nth) else { return true };
        let learn = |round| self.learn(nth, round, all);
        let outcome = server.round(devices, &self.0.driver, &learn).await;
        if let Err(error) = &outcome {
            tracing::warn!(%error, "what was known of devices stays");
        }
        outcome.is_ok()
    }

    /// What it could not say this time stays as it was. A device that is gone may be in a pod, and
    /// will come back; what is known of it stays for as long as there are no more than twice as many.
    fn learn(&self, nth: usize, round: Round, devices: &[Device]) {
        let there: BTreeSet<_> = devices.iter().map(|device| &device.name).collect();
        self.0.known.send_if_modified(|known| {
            let mut all = (**known).clone();
            let Some(said) = all.get_mut(nth) else { return false };
            for (name, news) in round {
                match news {
                    Some(news) => drop(said.insert(name, news)),
                    None => drop(said.entry(name).or_default()),
                }
            }
            if said.len() > 2 * there.len().max(8) {
                said.retain(|name, _| there.contains(name));
            }
            let is_news = all != **known;
            *known = Arc::new(all);
            is_news
        });
    }

    /// From now on nothing of the claim is given back, until the answer is dropped.
    pub fn granting(&self, claim: &ClaimUid) -> Granting {
        self.0.grants.granting(claim)
    }

    /// Has a profile resolved for a device that a claim was allocated. `config` is what class and claim
    /// say, in one. Repeated for the same it answers the same, and asks nobody. Takes as long as the
    /// provider may take for two answers. Whoever calls holds a [`Granting`].
    ///
    /// # Errors
    ///
    /// Any [`ProviderError`]; what the provider may have granted is given back later.
    pub async fn grant(
        &self,
        claim: &ResourceClaim,
        uid: &ClaimUid,
        (device, share): (&Device, Option<&ShareId>),
        profile: &str,
        config: &Value,
    ) -> Result<Value, ProviderError> {
        if self.0.grants.is_releasing(uid) {
            return Err(ProviderError::Releasing { profile: profile.to_owned() });
        }
        let identity = Identity::from(device);
        let before = self.0.grants.find(uid, &identity, share);
        if let Some(Grant { answer: Some(answer), profile: granted, .. }) = &before
            && granted == profile
        {
            return Ok(answer.clone());
        }
        if self.0.servers.get().is_none() {
            return Err(ProviderError::NotYet { profile: profile.to_owned() });
        }
        let earlier = before.as_ref().filter(|before| before.profile == profile);
        // It may have answered an earlier try.
        let asked = earlier.map_or(config, |earlier| &earlier.config).clone();
        // It may have granted something, and nobody else could give that back.
        let server = if let Some(server) = earlier.and_then(|it| self.server(&it.provider)) {
            server
        } else {
            self.clear(uid, (&identity, share), before, profile).await?;
            self.resolver(profile).await?
        };
        let caller = server.caller().await?;
        let mut grant = Grant {
            claim: uid.clone(),
            device: identity,
            share: share.cloned(),
            provider: server.rule.name.clone(),
            profile: profile.to_owned(),
            config: asked,
            answer: None,
            superseded: false,
        };
        self.record(grant.clone()).await?;
        let mut question = json!({
            "device": grant.device, "claim": claim, "claim_uid": uid, "config": config,
        });
        let answer = resolved(&caller, &question, &grant.provider).await?;
        grant.config = over(config, answer.clone());
        // Whatever follows, this is what has to be given back.
        self.record(grant.clone()).await?;
        question["config"] = grant.config.clone();
        server.check_runtime_hook(&caller, &question, profile).await?;
        grant.answer = Some(answer.clone());
        self.record(grant).await?;
        Ok(answer)
    }

    /// Makes room for another grant of the same device: what is there has to be given back first,
    /// because a provider may know by claim and device what it granted. Where its provider is no
    /// longer asked, nobody waits for that.
    async fn clear(
        &self,
        uid: &ClaimUid,
        (device, share): (&Identity, Option<&ShareId>),
        before: Option<Grant>,
        profile: &str,
    ) -> Result<(), ProviderError> {
        if let Some(before) = before {
            let grants = self.0.grants.clone();
            on_disk(move || grants.supersede(&before)).await?;
        }
        let left = self.0.grants.superseded(uid, device, share);
        if left.iter().any(|provider| self.is_there(provider)) {
            return Err(ProviderError::Releasing { profile: profile.to_owned() });
        }
        Ok(())
    }

    /// The first provider that says it resolves profiles. One that cannot say whether it does hides
    /// those after it: it is not for an outage to decide who grants.
    async fn resolver(&self, profile: &str) -> Result<&Server, ProviderError> {
        for server in self.servers().iter().filter(|server| !server.is_file()) {
            if server.abilities().await?.has_profiles {
                return Ok(server);
            }
        }
        Err(ProviderError::NoProfiles { profile: profile.to_owned() })
    }

    fn server(&self, provider: &str) -> Option<&Server> {
        self.servers().iter().find(|server| server.rule.name == provider && !server.is_file())
    }

    /// Whether it is one of those who are asked.
    fn is_there(&self, provider: &str) -> bool {
        self.server(provider).is_some()
    }

    /// The way to a provider that granted something.
    pub(super) async fn caller(&self, provider: &str) -> Result<Caller, ProviderError> {
        match self.server(provider) {
            Some(server) => server.caller().await,
            None => Err(ProviderError::Gone { provider: provider.to_owned() }),
        }
    }

    pub(super) fn grants(&self) -> &Grants {
        &self.0.grants
    }

    async fn record(&self, grant: Grant) -> Result<(), ProviderError> {
        let grants = self.0.grants.clone();
        on_disk(move || grants.record(grant)).await
    }
}

/// What a provider makes of a profile.
async fn resolved(
    caller: &Caller,
    question: &Value,
    provider: &str,
) -> Result<Value, ProviderError> {
    match caller.post(PROFILE, question).await? {
        Value::Null => Ok(json!({})),
        answer @ Value::Object(_) => Ok(answer),
        other => {
            let reason = format!("{other} is not an object");
            Err(ProviderError::Nonsense { provider: provider.to_owned(), path: PROFILE, reason })
        }
    }
}

/// The fields of `above` over those of `below`, objects field by field.
pub fn over(above: &Value, below: Value) -> Value {
    match (above, below) {
        (Value::Object(above), Value::Object(mut below)) => {
            for (name, value) in above {
                let merged = over(value, below.remove(name).unwrap_or_default());
                below.insert(name.clone(), merged);
            }
            Value::Object(below)
        }
        (above, _) => above.clone(),
    }
}
