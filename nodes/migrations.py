"""The store's tables, as the steps that led to them.

Released steps never change: a store out there has gone through them. A new table or column is a new step at the end.
Every step is a tuple of SQL statements that run in one transaction; the store's schema version is the number of steps.
"""

from __future__ import annotations

Step = tuple[str, ...]

# `key`: digest of reward, picture and prompt, so that no prompt can be read in the store. REAL holds a Python float
# exactly. `last_used`: seconds since 1970.
_SCORES: Step = (
    """
    CREATE TABLE scores (
        key BLOB NOT NULL PRIMARY KEY,
        reward_id TEXT NOT NULL,
        score REAL NOT NULL,
        last_used INTEGER NOT NULL
    ) WITHOUT ROWID
    """,
    "CREATE INDEX scores_by_use ON scores (last_used)",
)

# `quantiles`: JSON list of 101 numbers, 0 % … 100 %.
_CALIBRATIONS: Step = (
    """
    CREATE TABLE calibrations (
        reward_id TEXT NOT NULL,
        name TEXT NOT NULL,
        reward_name TEXT NOT NULL,
        count INTEGER NOT NULL CHECK (count > 1),
        mean REAL NOT NULL,
        deviation REAL NOT NULL CHECK (deviation > 0),
        quantiles TEXT NOT NULL,
        made INTEGER NOT NULL,
        PRIMARY KEY (reward_id, name)
    ) WITHOUT ROWID
    """,
)

# `file`: below the pack's LoRA folder, with forward slashes; of one in the trash, where it was before.
# `content`: SHA-256 of the file. `weights_id`: of the tensors alone. `modified`: nanoseconds, as the file system says.
# `metrics`, `settings`: JSON. `status`: erased = its trash was emptied; what is known of it stays, for its descendants.
# `lora_events`: what was done, never changed; `detail`: JSON. `created`, `at`: seconds since 1970.
_CATALOGUE: Step = (
    """
    CREATE TABLE loras (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        file TEXT NOT NULL,
        content TEXT NOT NULL,
        weights_id TEXT NOT NULL,
        size INTEGER NOT NULL,
        modified INTEGER NOT NULL,
        run TEXT NOT NULL,
        version INTEGER NOT NULL,
        stopped INTEGER NOT NULL,
        method TEXT NOT NULL,
        base_model TEXT NOT NULL,
        base_hash TEXT NOT NULL,
        data_hash TEXT NOT NULL,
        reward TEXT NOT NULL,
        reward_id TEXT NOT NULL,
        steps INTEGER NOT NULL,
        rank INTEGER NOT NULL,
        metrics TEXT NOT NULL,
        settings TEXT NOT NULL,
        status TEXT NOT NULL CHECK (status IN ('new', 'promoted', 'retired', 'trashed', 'erased')),
        status_before TEXT NOT NULL,
        missing INTEGER NOT NULL,
        created INTEGER NOT NULL,
        note TEXT NOT NULL
    )
    """,
    "CREATE UNIQUE INDEX loras_by_file ON loras (file) WHERE missing = 0 AND status NOT IN ('trashed', 'erased')",
    "CREATE INDEX loras_by_content ON loras (content)",
    "CREATE UNIQUE INDEX loras_promoted ON loras (run) WHERE status = 'promoted'",
    """
    CREATE TABLE lora_parents (
        lora INTEGER NOT NULL REFERENCES loras (id),
        position INTEGER NOT NULL,
        weights_id TEXT NOT NULL,
        name TEXT NOT NULL,
        strength REAL NOT NULL,
        PRIMARY KEY (lora, position)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE lora_tags (
        lora INTEGER NOT NULL REFERENCES loras (id),
        tag TEXT NOT NULL,
        PRIMARY KEY (lora, tag)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE lora_events (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        lora INTEGER NOT NULL REFERENCES loras (id),
        at INTEGER NOT NULL,
        kind TEXT NOT NULL,
        detail TEXT NOT NULL
    )
    """,
    "CREATE INDEX lora_events_by_lora ON lora_events (lora)",
    """
    CREATE TRIGGER lora_events_stay BEFORE UPDATE ON lora_events
    BEGIN SELECT RAISE(ABORT, 'what was done is never changed'); END
    """,
    """
    CREATE TRIGGER lora_events_remain BEFORE DELETE ON lora_events
    BEGIN SELECT RAISE(ABORT, 'what was done is never changed'); END
    """,
)

# `pair`: digest of a blind pair, see nodes/training/ab_book.py. `winner`: digest of the preferred picture's pixels, ""
# for a tie. `made`: nanoseconds since 1970.
_BLIND_VOTES: Step = (
    """
    CREATE TABLE ab_votes (
        pair BLOB NOT NULL PRIMARY KEY,
        winner TEXT NOT NULL,
        made INTEGER NOT NULL
    ) WITHOUT ROWID
    """,
)

# `path`: digest of a file's path, so that no path can be read in the store. `digest`: SHA-256 of the content.
# `modified`: nanoseconds, as the file system says; `made`: nanoseconds since 1970.
_FILE_DIGESTS: Step = (
    """
    CREATE TABLE file_digests (
        path BLOB NOT NULL PRIMARY KEY,
        size INTEGER NOT NULL,
        modified INTEGER NOT NULL,
        digest TEXT NOT NULL,
        made INTEGER NOT NULL
    ) WITHOUT ROWID
    """,
)

# What a file is known by grew: begun anew, since a digest costs one reading. `state`: size, times and number of the
# file, as text, since they may need more than 64 bits. `last_used`: nanoseconds since 1970.
_FILE_STATES: Step = (
    "DROP TABLE file_digests",
    """
    CREATE TABLE file_digests (
        path BLOB NOT NULL PRIMARY KEY,
        state TEXT NOT NULL,
        digest TEXT NOT NULL,
        last_used INTEGER NOT NULL
    ) WITHOUT ROWID
    """,
)

# `trashed_as`: name of the file in the trash, where copies of one content may lie together; "" = the first of them.
_TRASH_NAMES: Step = ("ALTER TABLE loras ADD COLUMN trashed_as TEXT NOT NULL DEFAULT ''",)

# What a person prefers; see nodes/preferences. Times are seconds since 1970.
# `profiles.name`: "" = being erased. `folded`: what counts as the same name. `revision`: rises with every decision that
# is made, changed or taken back. The counts are of questions by their verdict; triggers keep them.
# `erasures`: profiles that are to leave no bytes, until none are left.
# `pictures.hash`: see nodes/picture_folder.py.
# `questions`: pictures of one prompt that are judged together; `key`: digest of the kind and of the pictures.
# `decision`, `verdict`: of the newest of its decisions, which is the one that stands; NULL = none. `open`: 1 = waits
# for a person. `seed`: text, since a whole number in SQLite ends at 2^63.
_PREFERENCES: Step = (
    """
    CREATE TABLE profiles (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        key TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL,
        folded TEXT NOT NULL UNIQUE,
        revision INTEGER NOT NULL DEFAULT 0,
        created INTEGER NOT NULL,
        chosen INTEGER NOT NULL DEFAULT 0,
        ties INTEGER NOT NULL DEFAULT 0,
        skipped INTEGER NOT NULL DEFAULT 0,
        rated INTEGER NOT NULL DEFAULT 0,
        waiting INTEGER NOT NULL DEFAULT 0
    )
    """,
    "CREATE TABLE erasures (profile INTEGER NOT NULL PRIMARY KEY)",
    """
    CREATE TABLE pictures (
        id INTEGER PRIMARY KEY,
        hash BLOB NOT NULL UNIQUE,
        width INTEGER NOT NULL,
        height INTEGER NOT NULL
    )
    """,
    "CREATE TABLE prompts (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE)",
    """
    CREATE TABLE questions (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        profile INTEGER NOT NULL REFERENCES profiles (id) ON DELETE CASCADE,
        key BLOB NOT NULL,
        kind TEXT NOT NULL CHECK (kind IN ('pair', 'best', 'stars')),
        prompt INTEGER NOT NULL REFERENCES prompts (id),
        open INTEGER NOT NULL DEFAULT 1,
        decision INTEGER,
        verdict TEXT,
        UNIQUE (profile, key)
    )
    """,
    "CREATE INDEX questions_waiting ON questions (profile, id) WHERE open = 1",
    "CREATE INDEX questions_decided ON questions (profile, decision) WHERE decision IS NOT NULL",
    "CREATE INDEX questions_by_prompt ON questions (prompt)",
    """
    CREATE TRIGGER questions_asked AFTER INSERT ON questions
    BEGIN UPDATE profiles SET waiting = waiting + NEW.open WHERE id = NEW.profile; END
    """,
    """
    CREATE TRIGGER questions_answered AFTER UPDATE OF verdict, open ON questions
    BEGIN
        UPDATE profiles SET
            chosen = chosen + (NEW.verdict IS 'chosen') - (OLD.verdict IS 'chosen'),
            ties = ties + (NEW.verdict IS 'tie') - (OLD.verdict IS 'tie'),
            skipped = skipped + (NEW.verdict IS 'skip') - (OLD.verdict IS 'skip'),
            rated = rated + (NEW.verdict IS 'stars') - (OLD.verdict IS 'stars'),
            waiting = waiting + NEW.open - OLD.open
        WHERE id = NEW.profile;
    END
    """,
    """
    CREATE TRIGGER questions_forgotten AFTER DELETE ON questions
    BEGIN
        UPDATE profiles SET
            chosen = chosen - (OLD.verdict IS 'chosen'),
            ties = ties - (OLD.verdict IS 'tie'),
            skipped = skipped - (OLD.verdict IS 'skip'),
            rated = rated - (OLD.verdict IS 'stars'),
            waiting = waiting - OLD.open
        WHERE id = OLD.profile;
    END
    """,
    """
    CREATE TABLE question_pictures (
        question INTEGER NOT NULL REFERENCES questions (id) ON DELETE CASCADE,
        position INTEGER NOT NULL,
        picture INTEGER NOT NULL REFERENCES pictures (id),
        seed TEXT NOT NULL,
        PRIMARY KEY (question, position)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX question_pictures_by_picture ON question_pictures (picture)",
    """
    CREATE TABLE decisions (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        profile INTEGER NOT NULL REFERENCES profiles (id) ON DELETE CASCADE,
        question INTEGER NOT NULL REFERENCES questions (id) ON DELETE CASCADE,
        verdict TEXT NOT NULL CHECK (verdict IN ('chosen', 'tie', 'skip', 'stars')),
        chosen INTEGER REFERENCES pictures (id),
        made INTEGER NOT NULL,
        CHECK ((verdict = 'chosen') = (chosen IS NOT NULL))
    )
    """,
    "CREATE INDEX decisions_by_profile ON decisions (profile, id)",
    "CREATE INDEX decisions_by_question ON decisions (question, id)",
    "CREATE INDEX decisions_by_chosen ON decisions (chosen) WHERE chosen IS NOT NULL",
    """
    CREATE TABLE ratings (
        decision INTEGER NOT NULL REFERENCES decisions (id) ON DELETE CASCADE,
        picture INTEGER NOT NULL REFERENCES pictures (id),
        stars INTEGER NOT NULL CHECK (stars BETWEEN 1 AND 5),
        PRIMARY KEY (decision, picture)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX ratings_by_picture ON ratings (picture)",
    # `encoder`: what made it. `revision`: of the profile it was made from. `content`: a safetensors file.
    """
    CREATE TABLE embeddings (
        profile INTEGER NOT NULL REFERENCES profiles (id) ON DELETE CASCADE,
        encoder TEXT NOT NULL,
        revision INTEGER NOT NULL,
        content BLOB NOT NULL,
        made INTEGER NOT NULL,
        PRIMARY KEY (profile, encoder)
    ) WITHOUT ROWID
    """,
)

# Refinement in rounds; see nodes/refinement. Keys are 32 random hex digits, "" = none. Times are seconds since 1970.
# `sessions.name`: "" = being erased. `folded`: what counts as the same name. `head`: the round that the next one builds
# on. `undone`: JSON list of the rounds that can be done again, the next one last. `revision`: rises with every move
# that changes what the next run makes. `audit_rows`, `audit_hash`: number and last hash of the session's audit rows.
# `session_erasures`: `done` = 0: is to leave no bytes; 1: has left none, kept for writers that come late.
# `session_rounds.status`: open = waits for a person; passed = other pictures were asked for; committed.
# `embedding`, `schedule`, `weights`, `feedback`, `scores`: JSON, "" = none. `seed`: text, since a whole number in
# SQLite ends at 2^63. `session_pictures.hash`: see nodes/picture_folder.py.
# `session_audit`: rows can be added, and go with their session, nothing else; `body`: JSON; see refinement/audit.py.
_SESSIONS: Step = (
    """
    CREATE TABLE sessions (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        key TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL,
        folded TEXT NOT NULL UNIQUE,
        prompt TEXT NOT NULL,
        negative TEXT NOT NULL,
        seed TEXT NOT NULL,
        revision INTEGER NOT NULL DEFAULT 0,
        head TEXT NOT NULL DEFAULT '',
        undone TEXT NOT NULL DEFAULT '[]',
        created INTEGER NOT NULL,
        changed INTEGER NOT NULL,
        audit_rows INTEGER NOT NULL DEFAULT 0,
        audit_hash TEXT NOT NULL DEFAULT ''
    )
    """,
    "CREATE TABLE session_erasures (key TEXT NOT NULL PRIMARY KEY, done INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID",
    """
    CREATE TABLE session_rounds (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        session INTEGER NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
        key TEXT NOT NULL UNIQUE,
        parent TEXT NOT NULL,
        number INTEGER NOT NULL,
        attempt INTEGER NOT NULL,
        status TEXT NOT NULL CHECK (status IN ('open', 'passed', 'committed')),
        prompt TEXT NOT NULL,
        negative TEXT NOT NULL,
        embedding TEXT NOT NULL,
        schedule TEXT NOT NULL,
        weights TEXT NOT NULL,
        feedback TEXT NOT NULL,
        seconds REAL NOT NULL,
        lora TEXT NOT NULL,
        latents TEXT NOT NULL,
        made INTEGER NOT NULL,
        CHECK ((status = 'committed') = (feedback <> ''))
    )
    """,
    "CREATE INDEX session_rounds_by_session ON session_rounds (session, id)",
    "CREATE UNIQUE INDEX session_rounds_open ON session_rounds (session, parent) WHERE status = 'open'",
    """
    CREATE TABLE session_pictures (
        round INTEGER NOT NULL REFERENCES session_rounds (id) ON DELETE CASCADE,
        position INTEGER NOT NULL,
        hash TEXT NOT NULL,
        seed TEXT NOT NULL,
        scores TEXT NOT NULL,
        PRIMARY KEY (round, position)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE session_ratings (
        round INTEGER NOT NULL,
        position INTEGER NOT NULL,
        rater TEXT NOT NULL,
        stars INTEGER NOT NULL CHECK (stars BETWEEN 1 AND 5),
        PRIMARY KEY (round, position, rater),
        FOREIGN KEY (round, position) REFERENCES session_pictures (round, position) ON DELETE CASCADE
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE session_audit (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        session INTEGER NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
        number INTEGER NOT NULL,
        made INTEGER NOT NULL,
        round TEXT NOT NULL,
        kind TEXT NOT NULL,
        body TEXT NOT NULL,
        previous TEXT NOT NULL,
        own TEXT NOT NULL,
        UNIQUE (session, number)
    )
    """,
    """
    CREATE TRIGGER session_audit_stays BEFORE UPDATE ON session_audit
    BEGIN SELECT RAISE(ABORT, 'what was done is never changed'); END
    """,
    """
    CREATE TRIGGER session_audit_remains BEFORE DELETE ON session_audit
    WHEN EXISTS (SELECT 1 FROM sessions WHERE id = OLD.session)
    BEGIN SELECT RAISE(ABORT, 'what was done is never changed'); END
    """,
)

MIGRATIONS: tuple[Step, ...] = (
    (*_SCORES, *_CALIBRATIONS),
    _CATALOGUE,
    _BLIND_VOTES,
    _FILE_DIGESTS,
    _FILE_STATES,
    _TRASH_NAMES,
    _PREFERENCES,
    _SESSIONS,
)
