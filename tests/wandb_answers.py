"""What W&B's server knows and answers, for `wandb_stub.py`: runs, artifacts, sweeps.

Operations are told apart by their GraphQL names, as wandb 0.31's client and `wandb-core` send them.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import yaml

ENTITY = "tester"


@dataclass
class Run:
    """What the server knows of a run."""

    name: str
    project: str
    entity: str
    group: str | None = None
    job_type: str | None = None
    sweep: str | None = None
    display_name: str | None = None
    notes: str | None = None
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, dict[int, str]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    used: list[str] = field(default_factory=list)
    exit_code: int | None = None
    starts: int = 0

    @property
    def history(self) -> list[dict[str, Any]]:
        """Rows as they were logged."""
        return [json.loads(line) for _, line in sorted(self.lines.get("wandb-history.jsonl", {}).items())]

    def values(self, name: str) -> list[Any]:
        """The values of one metric, in order."""
        return [row[name] for row in self.history if name in row]


@dataclass
class Artifact:
    """A collection's version, with the files that were uploaded for it."""

    id: str
    name: str
    type: str
    run: str | None
    aliases: list[str]
    metadata: dict[str, Any]
    digest: str
    files: dict[str, bytes] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)
    committed: bool = False


@dataclass
class Sweep:
    """A grid, its trials in order, and which runs the server wants stopped once they have logged something."""

    name: str
    project: str
    config: dict[str, Any]
    trials: list[dict[str, Any]]
    stop: set[int] = field(default_factory=set)
    given: list[str] = field(default_factory=list)
    at_once: int = 1


class Answers:
    """Answers to operations; a method per GraphQL name. `url` is where files are to be sent."""

    def __init__(self) -> None:
        self.url = ""
        self.by_path: dict[tuple[str, str, str], Run] = {}
        self.artifacts: list[Artifact] = []
        self.sweeps: dict[str, Sweep] = {}
        self.stop_trials: set[int] = set()
        self.at_once = 1
        self.unknown: list[str] = []
        self._ids = itertools.count(1)

    @property
    def runs(self) -> dict[str, Run]:
        """Runs by their ids, which no two of them may share here."""
        found = {run.name: run for run in self.by_path.values()}
        assert len(found) == len(self.by_path), f"one id in several projects: {list(self.by_path)}"
        return found

    def run_of(self, given: dict[str, Any], name: str) -> Run | None:
        """The run that an operation is about; `name` is the key that has its id."""
        entity, project = (given.get(key) or given.get(f"{key}Name") for key in ("entity", "project"))
        return self.by_path.get((entity or ENTITY, project or "uncategorized", given[name]))

    def answer(self, operation: str, query: str, given: dict[str, Any]) -> dict[str, Any]:
        """Return the data of a GraphQL answer."""
        method = getattr(self, f"on_{operation}", None)
        if method is None:
            self.unknown.append(query)
            return {}
        return method(given)

    def on_Viewer(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"viewer": _viewer()}

    def on_ServerFeaturesQuery(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"serverInfo": {"features": []}}

    def on_RunResumeStatus(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        run, bucket = self.run_of(given, "name"), None
        if run is not None:
            lines = {name: sorted(run.lines.get(f"wandb-{name}.jsonl", {}).items()) for name in ("history", "events")}
            bucket = {
                "id": run.name,
                "name": run.name,
                "summaryMetrics": json.dumps(run.summary),
                "displayName": run.display_name,
                "logLineCount": len(run.lines.get("output.log", {})),
                "historyLineCount": len(lines["history"]),
                "eventsLineCount": len(lines["events"]),
                "historyTail": json.dumps([text for _, text in lines["history"][-1:]]),
                "eventsTail": json.dumps([text for _, text in lines["events"][-1:]]),
                "config": json.dumps(run.config),
                "tags": run.tags,
                "notes": run.notes,
                "wandbConfig": json.dumps({"t": 1}),
            }
        owner = given.get("entity") or ENTITY
        entity = {"id": owner, "name": owner}
        return {"model": {"id": "p", "name": given.get("project") or "", "entity": entity, "bucket": bucket}}

    def on_UpsertBucket(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        name = given.get("name") or given.get("id")
        entity, project = given.get("entity") or ENTITY, given.get("project") or "uncategorized"
        inserted = (entity, project, name) not in self.by_path
        run = self.by_path.setdefault((entity, project, name), Run(name, project, entity))
        words = {"groupName": "group", "jobType": "job_type", "sweep": "sweep", "displayName": "display_name"}
        for theirs, ours in {**words, "notes": "notes", "tags": "tags"}.items():
            if given.get(theirs):
                setattr(run, ours, given[theirs])
        run.starts += given.get("host") is not None and given.get("program") is not None
        run.config.update(json.loads(given.get("config") or "{}"))
        run.summary.update(json.loads(given.get("summaryMetrics") or "{}"))
        bucket = {
            "id": name,
            "name": name,
            "displayName": run.display_name or name,
            "description": None,
            "config": json.dumps(run.config),
            "sweepName": run.sweep,
            "project": _project(run.project, run.entity),
            "historyLineCount": len(run.lines.get("wandb-history.jsonl", {})),
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}

    def on_CreateRunFiles(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        run = self.run_of(given, "run")
        where = f"{self.url}/upload/run/{run.entity}:{run.project}:{run.name}"
        files = [{"name": f, "uploadUrl": f"{where}/{f}"} for f in given["files"]]
        return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}

    def on_CreateArtifact(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        given = given["input"]
        aliases = [alias["alias"] for alias in given.get("aliases") or []]
        metadata = json.loads(given.get("metadata") or "{}")
        where = given["artifactCollectionName"], given["artifactTypeName"], given.get("runName")
        made = Artifact(f"artifact{next(self._ids)}", *where, aliases, metadata, given["digest"])
        same = [a for a in self.artifacts if (a.name, a.digest) == (made.name, made.digest) and a.committed]
        if same:
            made = same[0]
        else:
            self.artifacts.append(made)
        latest = {"id": made.id} if same else None
        state = "COMMITTED" if same else "PENDING"
        return {
            "createArtifact": {
                "artifact": {"id": made.id, "state": state, "artifactSequence": {"latestArtifact": latest}}
            }
        }

    def on_CreateArtifactManifest(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        file = {
            "id": "file",
            "uploadUrl": f"{self.url}/upload/manifest/{given['artifactID']}/{given['name']}",
            "uploadHeaders": [],
        }
        return {"createArtifactManifest": {"artifactManifest": {"id": given["artifactID"], "file": file}}}

    def on_ArtifactType(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        types = [a.type for a in self.artifacts if a.name == given["name"].split(":")[0]]
        return {"project": {"artifact": {"artifactType": {"name": types[0]}} if types else None}}

    def on_ArtifactByID(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        (made,) = [a for a in self.artifacts if a.id == given["id"]]
        project = next((self.runs[name].project for name in [made.run] if name in self.runs), "")
        sequence = {"__typename": "ArtifactSequence", "name": made.name, "project": _project(project)}
        zeros = {"size": 0, "fileCount": len(made.files), "ttlDurationSeconds": -1, "ttlIsInherited": True}
        nothing = dict.fromkeys(("description", "historyStep", "commitHash", "updatedAt"))
        texts = {"state": "COMMITTED", "digest": made.digest, "createdAt": "2026-01-01T00:00:00"}
        found = {"__typename": "Artifact", "id": made.id, "artifactSequence": sequence, "versionIndex": 0}
        found |= {"artifactType": {"name": made.type}, "metadata": json.dumps(made.metadata), "tags": [], "aliases": []}
        return {"artifact": {**found, **zeros, **nothing, **texts}}

    def on_OrganizationCoreWeaveOrganizationID(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"entity": None}

    def on_UpdateArtifactManifest(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        made = self.on_CreateArtifactManifest({"artifactID": given["artifactManifestID"], "name": "manifest.json"})
        return {"updateArtifactManifest": made["createArtifactManifest"]}

    def on_CreateArtifactFiles(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        nodes = [
            {
                "storagePath": f"stored/{spec['name']}",
                "uploadUrl": f"{self.url}/upload/artifact/{spec['artifactID']}/{spec['name']}",
                "uploadHeaders": [],
                "uploadMultipartUrls": None,
                "artifact": {"id": spec["artifactID"]},
            }
            for spec in given["input"]["artifactFiles"]
        ]
        return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}

    def on_CommitArtifact(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        (made,) = [a for a in self.artifacts if a.id == given["artifactID"]]
        made.committed = True
        return {"commitArtifact": {"artifact": {"id": made.id, "digest": made.digest}}}

    def on_UseArtifact(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        given = given["input"]
        self.run_of(given, "runName").used.append(given["artifactID"])
        return {"useArtifact": {"artifact": {"id": given["artifactID"]}}}

    # ---- sweeps --------------------------------------------------------------------------------------------

    def on_UpsertSweep(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        config = yaml.safe_load(given["config"])
        values = {name: spec.get("values", [spec.get("value")]) for name, spec in config["parameters"].items()}
        trials = [dict(zip(values, choice, strict=True)) for choice in itertools.product(*values.values())]
        name = f"sweep{next(self._ids)}"
        project = given.get("projectName") or config.get("project") or "uncategorized"
        self.sweeps[name] = Sweep(name, project, config, trials, self.stop_trials, at_once=self.at_once)
        sweep = {"name": name, "project": _project(project)}
        return {"upsertSweep": {"sweep": sweep, "configValidationWarnings": []}}

    def on_SweepWithRuns(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        sweep = self.sweeps[given["sweep"]]
        shown = {"id": sweep.name, "name": sweep.name, "config": yaml.safe_dump(sweep.config), "state": "RUNNING"}
        return {"project": {"sweep": {**shown, "method": sweep.config["method"], "runs": {"edges": []}}}}

    def on_CreateAgent(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"createAgent": {"agent": {"id": given["sweep"]}}}

    def on_Heartbeat(self, given: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        sweep, running = self.sweeps[given["id"]], json.loads(given["runState"])
        commands = []
        for number in sorted(sweep.stop & set(range(len(sweep.given)))):
            name = sweep.given[number]
            run = self.runs.get(name)
            if name in running and run is not None and run.values("val/top1"):
                commands.append({"type": "stop", "run_id": name})
        while len(sweep.given) < len(sweep.trials) and len(running) < sweep.at_once:
            trial = sweep.trials[len(sweep.given)]
            name = f"trial{len(sweep.given)}of{sweep.name}"
            sweep.given.append(name)
            running[name] = True
            arguments = {key: {"value": value} for key, value in trial.items()}
            commands.append(
                {"type": "run", "run_id": name, "program": sweep.config.get("program", ""), "args": arguments}
            )
        if not running:
            commands.append({"type": "exit"})
        return {"agentHeartbeat": {"agent": {"id": sweep.name}, "commands": json.dumps(commands)}}

    # ---- files ---------------------------------------------------------------------------------------------

    def stream(self, path: tuple[str, str, str], sent: dict[str, Any]) -> None:
        """Keep a post to a run's file stream."""
        run = self.by_path[path]
        for file, part in (sent.get("files") or {}).items():
            kept = run.lines.setdefault(file, {})
            kept.update({part["offset"] + i: line for i, line in enumerate(part["content"])})
            if file == "wandb-summary.json":
                run.summary = json.loads(part["content"][-1])
        if sent.get("complete"):
            run.exit_code = sent.get("exitcode")

    def keep(self, path: str, content: bytes) -> None:
        """Keep an uploaded file."""
        kind, owner, name = unquote(path).split("/", 4)[2:]
        if kind == "run":
            self.by_path[tuple(owner.split(":"))].files[name] = content
            return
        (artifact,) = [a for a in self.artifacts if a.id == owner]
        if kind == "manifest":
            artifact.manifest = json.loads(content)
        else:
            artifact.files[name] = content

    def artifact(self, kind: str) -> Artifact:
        """The newest artifact of a type."""
        return [a for a in self.artifacts if a.type == kind and a.committed][-1]


def _viewer() -> dict[str, Any]:
    teams = {"edges": [{"node": {"name": ENTITY}}]}
    return {"id": "u", "entity": ENTITY, "username": ENTITY, "email": "", "flags": "{}", "teams": teams}


def _project(name: str, entity: str = ENTITY) -> dict[str, Any]:
    return {
        "__typename": "Project",
        "id": "p",
        "internalId": "1",
        "name": name,
        "entity": {"id": entity, "name": entity},
    }
