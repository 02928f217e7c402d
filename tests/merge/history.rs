//! The model's histories, as JSON lines: read, mapped to our types, and compared.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};
use tidefs::merge::NoRecords;
use tidefs::merge::{AttrName, Key, Policy, RowKind, State, Verdict, list};
use tidefs::types::{
    AttrChange, Content, DeviceId, EntryId, FileId, Hlc, Kind, Name, Op, OpId, PlaceId, Role,
    Timestamp, VersionId,
};

use crate::replica::{Replica, Signed};

/// The mode of what the model makes without one.
const NO_MODE: u32 = u32::MAX;

/// A history and what the model says of it.
pub struct History {
    pub name: String,
    founders: Vec<(u16, Role)>,
    devices: Vec<String>,
    ops: Vec<Signed>,
    orders: Vec<Vec<OpId>>,
    contents: HashMap<VersionId, String>,
    expect: Value,
}

/// Journals by the order of the devices' names; 0 is the founder of the root, who is not there.
struct Journals(Vec<String>);

impl Journals {
    fn number(&self, device: &str) -> Result<u16> {
        let index = self.0.iter().position(|name| name == device);
        Ok(u16::try_from(index.with_context(|| format!("no device {device}"))? + 1)?)
    }

    fn id(&self, text: &Value) -> Result<OpId> {
        let text = text.as_str().context("an id is text")?;
        if text == "root" {
            return Ok(FileId::ROOT.0);
        }
        let (device, seq) = text.split_once(':').context("an id has a colon")?;
        Ok(OpId::new(self.number(device)?, seq.parse()?))
    }

    fn ids(&self, list: &Value) -> Result<Vec<OpId>> {
        list.as_array().context("a list of ids")?.iter().map(|id| self.id(id)).collect()
    }
}

impl History {
    pub fn parse(line: &str) -> Result<Self> {
        let line: Value = serde_json::from_str(line)?;
        let name = text(&line["name"])?.to_owned();
        let mut founders = Vec::new();
        let mut devices = Vec::new();
        let founding = line["devices"].as_array().context("devices")?;
        for device in founding {
            devices.push(text(&device["device"])?.to_owned());
        }
        for op in line["ops"].as_array().context("ops")? {
            if op["type"] == "role" && !devices.iter().any(|name| op["device"] == **name) {
                devices.push(text(&op["device"])?.to_owned());
            }
        }
        let journals = Journals(devices);
        for device in founding {
            founders.push((journals.number(text(&device["device"])?)?, role(&device["role"])?));
        }
        let mut ops = Vec::new();
        let mut contents = HashMap::new();
        for op in line["ops"].as_array().context("ops")? {
            let signed = signed(&journals, op)?;
            if let Some(content) = op["content"].as_str() {
                contents.insert(VersionId(signed.id), content.to_owned());
            }
            ops.push(signed);
        }
        let orders = line["orders"].as_array().context("orders")?;
        let orders = orders.iter().map(|order| journals.ids(order)).collect::<Result<_>>()?;
        let expect = line["expect"].clone();
        Ok(Self { name, founders, devices: journals.0, ops, orders, contents, expect })
    }

    /// Is our result the model's, in each order, compacting after every op or not at all?
    pub fn check(&self) -> Result<()> {
        let by_id: HashMap<OpId, &Signed> = self.ops.iter().map(|op| (op.id, op)).collect();
        let first: Vec<OpId> = self.ops.iter().map(|op| op.id).collect();
        for (number, order) in std::iter::once(&first).chain(&self.orders).enumerate() {
            for compacts in [false, true] {
                let mut replica = Replica::new(self.founders.clone());
                for id in order {
                    replica.deliver(by_id[id]);
                    if compacts {
                        replica.compact();
                    }
                }
                self.compare(&mut replica, number == 0, compacts)
                    .with_context(|| format!("order {number}, compacting: {compacts}"))?;
            }
        }
        Ok(())
    }

    fn compare(&self, replica: &mut Replica, is_first: bool, compacts: bool) -> Result<()> {
        for (name, policy) in [
            ("keep_both", Policy { keeps_both: true, is_caseless: false }),
            ("last_write_wins", Policy { keeps_both: false, is_caseless: false }),
            ("keep_both_caseless", Policy { keeps_both: true, is_caseless: true }),
        ] {
            let expected = self.expect.get(name).unwrap_or(&self.expect["keep_both"]);
            self.same(name, &self.view(&replica.state, policy)?, expected)?;
        }
        let void: Map<String, Value> = replica
            .void()
            .into_iter()
            .map(|(id, verdict)| (self.id_text(id), json!(reason(verdict))))
            .collect();
        self.same("void", &Value::Object(void), &self.expect["void"])?;
        if !compacts {
            let skipped: Vec<String> =
                replica.skipped().into_iter().map(|id| self.id_text(id)).collect();
            self.same("skipped", &json!(skipped), &self.expect["skipped"])?;
        }
        if is_first && !compacts {
            let mut collected: Vec<String> =
                replica.compact().into_iter().map(|entry| self.id_text(entry.0)).collect();
            collected.sort();
            self.same("collected", &json!(collected), &self.expect["collected"])?;
        }
        Ok(())
    }

    fn same(&self, what: &str, ours: &Value, expected: &Value) -> Result<()> {
        ensure!(ours == expected, "{}: {what}\n  ours  {ours}\n  model {expected}", self.name);
        Ok(())
    }

    fn view(&self, state: &State<NoRecords>, policy: Policy) -> Result<Value> {
        let mut rows = Vec::new();
        self.walk(state, policy, &[FileId::ROOT], "/", &mut rows)?;
        rows.sort_by(|a, b| a["path"].as_str().cmp(&b["path"].as_str()));
        Ok(Value::Array(rows))
    }

    fn walk(
        &self,
        state: &State<NoRecords>,
        policy: Policy,
        directories: &[FileId],
        path: &str,
        into: &mut Vec<Value>,
    ) -> Result<()> {
        let label = |device: &DeviceId| device_name(device);
        let Ok(rows) = list(state, directories, policy, &label);
        for row in rows {
            let path = format!("{path}{}", row.name);
            let entries: Vec<String> = row.entries.iter().map(|id| self.id_text(id.0)).collect();
            let kind = match row.kind {
                RowKind::Directory => "dir",
                RowKind::File => "file",
                RowKind::Sibling => "sibling",
            };
            let mut line = json!({"path": path, "kind": kind, "entries": entries});
            if row.kind == RowKind::Directory {
                let inside: Vec<FileId> = row.entries.iter().map(|id| FileId(id.0)).collect();
                self.walk(state, policy, &inside, &format!("{path}/"), into)?;
            } else {
                line["content"] = json!(row.head.map_or("", |head| &self.contents[&head]));
            }
            if !row.siblings.is_empty() {
                let contents: Vec<&str> =
                    row.siblings.iter().map(|head| self.contents[head].as_str()).collect();
                line["siblings"] = json!(contents);
            }
            let attrs = attrs(state, row.inode);
            if !attrs.is_empty() {
                line["attrs"] = json!(attrs);
            }
            into.push(line);
        }
        Ok(())
    }

    fn id_text(&self, id: OpId) -> String {
        format!("{}:{}", self.devices[usize::from(id.journal()) - 1], id.seq())
    }
}

fn attrs(state: &State<NoRecords>, inode: FileId) -> BTreeMap<String, u64> {
    let Ok(inode) = state.inode(inode);
    let mut attrs = BTreeMap::new();
    for (name, (_, change)) in inode.expect("shown").attrs {
        match (name, change) {
            (AttrName::Mode, AttrChange::Mode(mode)) if mode != NO_MODE => {
                attrs.insert("mode".to_owned(), u64::from(mode));
            }
            (AttrName::Xattr(name), AttrChange::Xattr(_, Some(value))) => {
                let name = String::from_utf8(name).expect("text");
                let value = String::from_utf8(value).expect("text");
                attrs.insert(name, value.parse().expect("a number"));
            }
            _ => {}
        }
    }
    attrs
}

fn signed(journals: &Journals, line: &Value) -> Result<Signed> {
    let id = journals.id(&line["id"])?;
    let hlc = Hlc(line["key"][0].as_u64().context("hlc")?);
    let key = Key { hlc, device: device_id(text(&line["key"][1])?) };
    let mut frontier = BTreeMap::new();
    for (device, seq) in line["frontier"].as_object().context("frontier")? {
        frontier.insert(journals.number(device)?, seq.as_u64().context("seq")?);
    }
    Ok(Signed { id, key, frontier, op: op(journals, line)? })
}

fn op(journals: &Journals, line: &Value) -> Result<Op> {
    let id = |field: &str| journals.id(&line[field]);
    let ids = |field: &str| journals.ids(&line[field]);
    let versions =
        |field: &str| Ok::<_, anyhow::Error>(ids(field)?.into_iter().map(VersionId).collect());
    let name = || Ok::<_, anyhow::Error>(Name::new(text(&line["name"])?.as_bytes())?);
    Ok(match text(&line["type"])? {
        "make" if line["inode"].is_null() => Op::Make {
            parent: FileId(id("parent")?),
            name: name()?,
            kind: if line["kind"] == "dir" { Kind::Directory } else { Kind::Regular },
            mode: line["mode"].as_u64().map_or(Ok(NO_MODE), u32::try_from)?,
            uid: 0,
            gid: 0,
        },
        "make" => {
            Op::Link { parent: FileId(id("parent")?), name: name()?, file: FileId(id("inode")?) }
        }
        "write" => {
            let content = text(&line["content"])?.as_bytes().to_vec();
            Op::Write {
                file: FileId(id("inode")?),
                parents: versions("parents")?,
                size_bytes: content.len() as u64,
                content: Content::Inline(content),
                mtime: Timestamp::default(),
                interim: false,
            }
        }
        "place" => {
            Op::Place { entry: EntryId(id("entry")?), parent: FileId(id("parent")?), name: name()? }
        }
        "unlink" => Op::Unlink {
            entry: EntryId(id("entry")?),
            seen_place: PlaceId(id("seen_place")?),
            seen_heads: versions("seen_heads")?,
        },
        "attr" => {
            let value = line["value"].as_u64().context("value")?;
            let change = match text(&line["name"])? {
                "mode" => AttrChange::Mode(u32::try_from(value)?),
                other => AttrChange::Xattr(other.into(), Some(value.to_string().into_bytes())),
            };
            Op::Attr { file: FileId(id("inode")?), change }
        }
        "ack" => Op::Ack,
        "role" => Op::Role {
            journal: journals.number(text(&line["device"])?)?,
            role: role(&line["role"])?,
        },
        "cut" => {
            let journal = journals.number(text(&line["device"])?)?;
            let seq = line["seq"].as_u64().context("seq")?;
            Op::Cut { last: OpId::new(journal, seq), hash: [0; 32] }
        }
        other => anyhow::bail!("no such op: {other}"),
    })
}

fn text(value: &Value) -> Result<&str> {
    value.as_str().with_context(|| format!("no text: {value}"))
}

fn role(value: &Value) -> Result<Role> {
    Ok(match text(value)? {
        "admin" => Role::Admin,
        "writer" => Role::Writer,
        "reader" => Role::Reader,
        "keeper" => Role::Keeper,
        other => anyhow::bail!("no such role: {other}"),
    })
}

fn reason(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Stands => "stands",
        Verdict::Role => "role",
        Verdict::Cut => "cut",
        Verdict::Malformed => "malformed",
        Verdict::Stranded => "stranded",
    }
}

/// A device's name as its key: so that keys sort as the model's names do.
fn device_id(name: &str) -> DeviceId {
    let mut id = [0; 32];
    id[..name.len()].copy_from_slice(name.as_bytes());
    DeviceId(id)
}

fn device_name(device: &DeviceId) -> String {
    String::from_utf8_lossy(&device.0).trim_end_matches('\0').to_owned()
}
