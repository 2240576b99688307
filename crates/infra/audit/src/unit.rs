//! A unit: the records of one call with the rows that they open or close, committed whole or not at all.

use crate::payload::PayloadPolicy;
use crate::record::{Draft, EntryKind, RecordError, Rendered};
use crate::repository::{guards, payloads};
use bytes::Bytes;
use systemprompt_database::WriteTx;
use systemprompt_leak::Scanner;
use systemprompt_models::ids::EntryId;

/// A value bound to a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    Null,
    Int(i64),
    Text(Box<str>),
    /// JSON in canonical form already (RFC 8785); see [`Cell::canonical`].
    Json(Box<str>),
    Blob(Box<[u8]>),
}

impl Cell {
    /// A JSON text whose members are sorted and which has no spaces, so that its digest needs no second look.
    pub fn canonical(json: impl Into<Box<str>>) -> Self {
        let json = json.into();
        debug_assert_eq!(*json, *canonical_json(&json), "not canonical");
        Self::Json(json)
    }
}

/// Type of a column. `Json` is TEXT on SQLite and JSONB on PostgreSQL; its cell is `Cell::Json` or `Cell::Text`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColType {
    Int,
    Text,
    Json,
    Blob,
}

/// A column of a [`Table`].
#[derive(Clone, Copy, Debug)]
pub struct Col {
    pub name: &'static str,
    pub ty: ColType,
    /// Whether rows were written before the column was there: while it is null it is no part of the row's digest.
    pub is_later: bool,
}

/// Short forms for the column lists of [`Table`] constants.
impl Col {
    const fn new(name: &'static str, ty: ColType) -> Self {
        Self { name, ty, is_later: false }
    }

    pub const fn int(name: &'static str) -> Self {
        Self::new(name, ColType::Int)
    }

    pub const fn text(name: &'static str) -> Self {
        Self::new(name, ColType::Text)
    }

    pub const fn json(name: &'static str) -> Self {
        Self::new(name, ColType::Json)
    }

    pub const fn blob(name: &'static str) -> Self {
        Self::new(name, ColType::Blob)
    }

    /// Of a column that a later migration added.
    pub const fn later(self) -> Self {
        Self { is_later: true, ..self }
    }
}

/// A companion table of the ledger. Its owner writes its migration; the ledger builds its statements once at start.
///
/// `open` lists every column that a new row sets (the key among them, and `ledger_opened`); `close` those that the one
/// closing update sets (`ledger_closed` among them). A table that is never closed has an empty `close`.
///
/// `opened_by` is the kind of record that always comes with a row. Without one the ledger writes the rows and vouches for none:
/// they come and go, as those of sessions do, and the table has no `ledger_opened`. The mirrors name the columns that repeat a member of
/// the opening or the closing record (column, JSON pointer into the record): verification reports a missing row and a column
/// that differs.
#[derive(Debug)]
pub struct Table {
    pub name: &'static str,
    pub key: &'static str,
    pub open: &'static [Col],
    pub close: &'static [Col],
    pub opened_by: Option<EntryKind>,
    pub mirror: &'static [(&'static str, &'static str)],
    pub mirror_closed: &'static [(&'static str, &'static str)],
}

/// A row that a unit inserts; `cells` come in the order of `TABLE.open`.
pub trait OpenRow {
    const TABLE: &'static Table;
    fn cells(self) -> Vec<Cell>;
}

/// The closing update of a row. It counts once: only a row whose `ledger_closed` is still null is touched, and a unit whose
/// row is closed already is refused. `cells` come in the order of `TABLE.close`.
pub trait CloseRow {
    const TABLE: &'static Table;
    fn key(&self) -> &str;
    fn cells(self) -> Vec<Cell>;
}

/// A single statement that must touch exactly one row, else this unit alone is refused ([`crate::LedgerError::Guard`]).
/// Placeholders are `$1…$n`, in the order of `cells`.
#[derive(Clone, Debug)]
pub struct Guard {
    pub name: &'static str,
    pub sql: &'static str,
    pub cells: Vec<Cell>,
}

impl Guard {
    /// Runs the statement in a transaction of its caller: for a rare change of which the guards are a part, and whose record was
    /// written before. Returns whether it touched exactly one row; the transaction is to be taken back if not.
    ///
    /// # Errors
    /// When the statement cannot be run.
    pub async fn holds_in(&self, tx: &mut WriteTx) -> sqlx::Result<bool> {
        Ok(guards::touched(tx, self).await? == 1)
    }
}

/// What is written of one companion row.
#[derive(Debug)]
pub(crate) enum RowWrite {
    Open { table: &'static Table, cells: Vec<Cell> },
    Close { table: &'static Table, key: Box<str>, cells: Vec<Cell> },
}

/// Member of `detail` that holds the digest of the row that a record opens or closes.
pub(crate) const ROW_DIGEST: &str = "row_sha256";

impl Table {
    /// The columns that the opening record vouches for to the end: those that no closing update touches.
    pub(crate) fn lasting(&self) -> impl Iterator<Item = (usize, &Col)> {
        let is_closed = |col: &Col| self.close.iter().any(|closing| closing.name == col.name);
        self.open.iter().enumerate().filter(move |(_, col)| !is_closed(col))
    }
}

impl RowWrite {
    /// Puts the digest of what is written into the record that this row names as its own.
    fn bind_to_record(&self, drafts: &mut [(EntryId, Draft)]) {
        let (named_by, digest) = match self {
            Self::Open { table, cells } => {
                let columns = table.lasting().map(|(at, col)| (*col, cells.get(at)));
                (named(table.open, cells, "ledger_opened"), row_digest(columns))
            }
            Self::Close { table, cells, .. } => {
                let columns = table.close.iter().copied().zip(cells.iter().map(Some));
                (named(table.close, cells, "ledger_closed"), row_digest(columns))
            }
        };
        let record = drafts.iter_mut().find(|(id, _)| Some(id.as_str()) == named_by);
        if let Some((_, draft)) = record {
            draft.detail.insert(ROW_DIGEST.to_owned(), digest.into());
        }
    }
}

fn named<'a>(cols: &[Col], cells: &'a [Cell], name: &str) -> Option<&'a str> {
    let at = cols.iter().position(|col| col.name == name)?;
    match cells.get(at) {
        Some(Cell::Text(id)) => Some(id),
        _ => None,
    }
}

/// SHA-256 over name and value of each column; JSON counts in canonical form, since one engine rewrites it.
pub(crate) fn row_digest<'a>(columns: impl Iterator<Item = (Col, Option<&'a Cell>)>) -> String {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    let mut part = |bytes: &[u8]| {
        context.update(&(bytes.len() as u64).to_be_bytes());
        context.update(bytes);
    };
    for (col, cell) in columns {
        if col.is_later && matches!(cell, None | Some(Cell::Null)) {
            continue;
        }
        part(col.name.as_bytes());
        match cell {
            None | Some(Cell::Null) => part(b"-"),
            Some(Cell::Int(value)) => part(format!("i{value}").as_bytes()),
            Some(Cell::Text(text)) if col.ty == ColType::Json => part(canonical_json(text).as_bytes()),
            Some(Cell::Text(text) | Cell::Json(text)) => part(text.as_bytes()),
            Some(Cell::Blob(bytes)) => part(bytes),
        }
    }
    hex::encode(context.finish())
}

fn canonical_json(text: &str) -> String {
    let value = serde_json::from_str::<serde_json::Value>(text).unwrap_or_default();
    serde_json_canonicalizer::to_string(&value).unwrap_or_default()
}

/// Most records that one unit may hold (AUD-9).
pub const MAX_UNIT_RECORDS: usize = 16;

/// Records, rows and guards that stand or fall together.
#[derive(Debug, Default)]
pub struct Unit {
    pub(crate) drafts: Vec<(EntryId, Draft)>,
    pub(crate) rows: Vec<RowWrite>,
    pub(crate) guards: Vec<Guard>,
    /// Statements behind the guards that may touch any number of rows.
    pub(crate) changes: Vec<Guard>,
}

impl Unit {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a record and returns the id that its ledger entry will have.
    pub fn record(&mut self, draft: Draft) -> EntryId {
        let id = EntryId::generate();
        self.drafts.push((id.clone(), draft));
        id
    }

    /// Adds a row to insert.
    pub fn open<R: OpenRow>(&mut self, row: R) {
        self.rows.push(RowWrite::Open { table: R::TABLE, cells: row.cells() });
    }

    /// Adds the closing update of a row.
    pub fn close<R: CloseRow>(&mut self, row: R) {
        let key = row.key().into();
        self.rows.push(RowWrite::Close { table: R::TABLE, key, cells: row.cells() });
    }

    /// Adds a guard.
    pub fn require(&mut self, guard: Guard) {
        self.guards.push(guard);
    }

    /// Adds a guard in front of the others, for a row that is locked before theirs.
    pub fn require_first(&mut self, guard: Guard) {
        self.guards.insert(0, guard);
    }

    /// Adds a statement that runs when the guards hold, however many rows it touches: what ends with what is recorded.
    pub fn change(&mut self, statement: Guard) {
        self.changes.push(statement);
    }

    /// Whether a record of this unit says that the call is denied; such a unit never yields a permit.
    pub fn is_denial(&self) -> bool {
        self.drafts.iter().any(|(_, draft)| draft.is_denial())
    }

    /// Renders the records, on the caller's thread, so that the single writer only joins and hashes.
    ///
    /// The record that opens or closes a row gets the row's digest, so that no column of it can be changed unnoticed.
    pub(crate) fn render(mut self) -> Result<RenderedUnit, RecordError> {
        match self.drafts.len() {
            0 => return Err(RecordError::EmptyUnit),
            n if n > MAX_UNIT_RECORDS => return Err(RecordError::UnitTooLarge(n)),
            _ => {}
        }
        let closing = self.is_closing();
        for row in &self.rows {
            row.bind_to_record(&mut self.drafts);
        }
        let records =
            self.drafts.into_iter().map(|(id, draft)| draft.render(id)).collect::<Result<_, _>>()?;
        Ok(RenderedUnit { records, rows: self.rows, guards: self.guards, changes: self.changes, closing })
    }

    /// Takes values in use out of what is about to be written. Returns how many were found.
    pub(crate) fn scrub(&mut self, leak: &Scanner) -> u64 {
        let mut found = self.drafts.iter_mut().map(|(_, draft)| draft.scrub(leak)).sum();
        for row in &mut self.rows {
            let (RowWrite::Open { cells, .. } | RowWrite::Close { cells, .. }) = row;
            for cell in cells {
                if let Cell::Text(text) | Cell::Json(text) = cell
                    && let Some((clean, hits)) = leak.redact_text(text)
                {
                    *text = clean.into_boxed_str();
                    found += hits.len() as u64;
                }
            }
        }
        found
    }

    /// Seals the payloads of all records; returns how many values in use were taken out of them.
    pub(crate) fn seal(&mut self, policy: &PayloadPolicy, leak: &Scanner) -> Result<u64, RecordError> {
        self.drafts.iter_mut().map(|(_, draft)| draft.seal(policy, leak)).sum()
    }

    /// Takes the bodies out that are too large for this unit's transaction, each with the place that it is referred to by; the
    /// unit then holds only if they were written there.
    pub(crate) fn take_large_bodies(&mut self) -> Vec<(String, Bytes)> {
        let mut large = Vec::new();
        for sealed in self.drafts.iter_mut().flat_map(|(_, draft)| &mut draft.sealed) {
            if let Some(body) = sealed.take_large() {
                let id = payloads::body_id();
                self.guards.push(payloads::named(&id));
                sealed.body_ref = Some(id.clone());
                large.push((id, body));
            }
        }
        large
    }

    /// Leaves of such bodies the commitments alone.
    pub(crate) fn forget_large_bodies(&mut self) {
        self.guards.retain(|guard| guard.name != payloads::BODY_GUARD);
        for sealed in self.drafts.iter_mut().flat_map(|(_, draft)| &mut draft.sealed) {
            sealed.forget_large();
        }
    }

    /// Whether this unit closes what others opened; such a unit may use the reserved part of the queue (AUD-12).
    pub(crate) fn is_closing(&self) -> bool {
        self.drafts.iter().all(|(_, draft)| draft.kind.is_closing())
    }
}

/// A unit as the writer takes it.
#[derive(Debug)]
pub(crate) struct RenderedUnit {
    pub records: Vec<Rendered>,
    pub rows: Vec<RowWrite>,
    pub guards: Vec<Guard>,
    pub changes: Vec<Guard>,
    pub closing: bool,
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text.into_boxed_str())
    }
}

impl From<i64> for Cell {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<bool> for Cell {
    fn from(value: bool) -> Self {
        Self::Int(i64::from(value))
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl From<&EntryId> for Cell {
    fn from(id: &EntryId) -> Self {
        Self::Text(id.as_str().into())
    }
}
