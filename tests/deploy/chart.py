"""The chart as Helm itself renders it, and what follows from it.

chart.py check          every example: rendered, held against the schemas of Kubernetes' API and Prometheus' operator,
                        and deploy/manifests against what the chart gives
chart.py write          writes deploy/manifests
chart.py args EXAMPLE   the container's arguments and environment, as JSON
chart.py queries FILE   every name of a metric that the rules and the dashboard ask for must stand in FILE
"""

import json
import os
import pathlib
import re
import subprocess
import sys

import helm_python
import kubernetes_validate
import promql_parser
import yaml

PEERS = pathlib.Path(os.environ["KARA_PEERS"])
DEPLOY = pathlib.Path(__file__).parents[2] / "deploy"
CHART = DEPLOY / "helm" / "kara"
MANIFESTS = DEPLOY / "manifests"
# The oldest and the newest API that the manifests are held against.
VERSIONS = ["1.25", kubernetes_validate.latest_version()]
RELEASE = {"name": "valkey", "namespace": "cache"}
OPERATOR = "monitoring.coreos.com/v1"
# Labels that only a release of Helm's has.
OF_HELM = ["helm.sh/chart", "app.kubernetes.io/managed-by"]


def examples():
    return {path.stem: yaml.safe_load(path.read_text()) for path in (DEPLOY / "helm/examples").glob("*.yaml")}


def rendered(values):
    with helm_python.Chart.load(CHART) as chart:
        files = chart.render(values, **RELEASE)
    documents = []
    for name, text in sorted(files.items()):
        if name.endswith(".yaml"):
            documents += [document for document in yaml.safe_load_all(text) if document]
    assert documents, "the chart renders nothing"
    return sorted(documents, key=lambda d: (d["kind"], d["metadata"]["name"]))


def plain(document):
    """The same for kubectl: without Helm's labels."""
    document = json.loads(json.dumps(document))
    for label in OF_HELM:
        document["metadata"].get("labels", {}).pop(label, None)
    return document


def manifest(example, values):
    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data):
            return True

        def increase_indent(self, flow=False, indentless=False):
            return super().increase_indent(flow, False)

    def text(dumper, data):
        style = "|" if "\n" in data else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", data, style=style)

    Dumper.add_representer(str, text)
    head = f"# What the chart gives for deploy/helm/examples/{example}.yaml: `cargo xtask manifests` writes this.\n"
    documents = [plain(document) for document in rendered(values) if not is_dashboard(document)]
    return head + "---\n".join(
        yaml.dump(document, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=1000) for document in documents
    )


def is_dashboard(document):
    return document["kind"] == "ConfigMap" and document["metadata"]["name"].endswith("-dashboard")


def hold_against_schema(document, version):
    if document["apiVersion"] == OPERATOR:
        operator(document)
    else:
        kubernetes_validate.validate(document, version, strict=True)


def operator(document):
    """Prometheus' operator isn't part of Kubernetes' API: its types come from the package that holds their schemas."""
    script = pathlib.Path(__file__).with_name("operator.mjs")
    node = {**os.environ, "KARA_NODE": str(PEERS / "node")}
    command = [PEERS / "bin/node", script]
    done = subprocess.run(command, input=json.dumps(document), text=True, capture_output=True, env=node)
    assert done.returncode == 0, done.stdout + done.stderr


def check():
    verdict = helm_python.lint(CHART, values=examples()["primary"])
    # 1 is advice, such as to have an icon.
    assert not verdict["errors"] and all(note["severity"] < 2 for note in verdict["messages"]), verdict
    for name, values in examples().items():
        documents = rendered(values)
        kinds = {document["kind"] for document in documents}
        assert {"StatefulSet", "Service", "PodDisruptionBudget", "NetworkPolicy"} <= kinds, (name, kinds)
        for document in documents:
            for version in VERSIONS:
                try:
                    hold_against_schema(document, version)
                except Exception as fault:
                    sys.exit(f"{name}, {document['kind']} {document['metadata']['name']}, {version}: {fault}")
            assert document["metadata"].get("labels", {}), document["metadata"]
        print(f"{name}: {len(documents)} objects")
        path = MANIFESTS / f"{name}.yaml"
        assert path.exists() and path.read_text() == manifest(name, values), f"{path.name}: cargo xtask manifests writes it"
    for path in sorted(MANIFESTS.glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            for version in VERSIONS:
                hold_against_schema(document, version)
    refusals()
    users()
    strictness()


def refusals():
    """Values that would start something else than what they ask for."""
    for values, word in [
        ({"auth": {"enabled": True}}, "usersExistingSecret"),
        ({"auth": {"usersExistingSecret": "s", "aclUsers": {"other": {}}}}, "needs permissions"),
        ({"auth": {"aclUsers": {"default": {"password": "x"}, "other": {"permissions": "+ping"}}}}, "needs a password"),
        ({"auth": {"usersExistingSecret": "s", "aclUsers": {"a b": {"permissions": "+ping"}}}}, "holds a space"),
        ({"disasterRecovery": {"enabled": True, "existingSecret": "s"}}, "address"),
        ({"auth": {"usersExistingSecret": "s"}, "replica": {"enabled": True}}, "persistence.size"),
    ]:
        try:
            rendered(values)
        except helm_python.HelmError as refusal:
            assert word in str(refusal), refusal
        else:
            raise AssertionError(f"{values} was rendered")
    # And some that change much.
    rendered({"auth": {"enabled": False}, "metrics": {"enabled": False}, "dataStorage": {"enabled": False}})
    rendered({"auth": {"aclUsers": {"default": {"password": "x"}}}, "valkeyConfig": "hz 20", "env": {"A": 1}})


def users():
    """Users beside default: flags without passwords, and where those are."""
    values = {"auth": {"aclUsers": {"default": {"password": "x"}, "app": {"permissions": "~app:* &*  +@all", "password": "y"},
                                    "probe": {"permissions": "+ping", "password": "z", "passwordKey": "k"}}},
              "replica": {"enabled": True, "persistence": {"size": "1Gi"}}}
    documents = rendered(values)
    secret = next(d for d in documents if d["kind"] == "Secret")
    assert set(secret["data"]) == {"default", "app", "k"}, secret
    sets = [d for d in documents if d["kind"] == "StatefulSet"]
    assert len(sets) == 2
    for each in sets:
        container = each["spec"]["template"]["spec"]["containers"][0]
        words = container["args"]
        at = words.index("--user")
        assert words[at:at + 11] == ["--user", "app", "on", ">$(VALKEY_USER_1_PASSWORD)", "~app:*", "&*", "+@all",
                                     "--user", "probe", "on", ">$(VALKEY_USER_2_PASSWORD)"], words
        keys = {e["name"]: e["valueFrom"]["secretKeyRef"]["key"] for e in container["env"] if "valueFrom" in e}
        assert keys["VALKEY_USER_1_PASSWORD"] == "app" and keys["VALKEY_USER_2_PASSWORD"] == "k", keys


def strictness():
    """The schemas are looked at at all: a wrong field is found."""
    documents = rendered(examples()["primary"])
    broken = next(d for d in documents if d["kind"] == "StatefulSet")
    broken["spec"]["replikas"] = 1
    monitor = next(d for d in documents if d["kind"] == "ServiceMonitor")
    monitor["spec"]["endpoints"] = "metrics"
    for document in (broken, monitor):
        try:
            hold_against_schema(document, VERSIONS[-1])
        except Exception:
            continue
        raise AssertionError(f"a broken {document['kind']} passed")


def container(example):
    for document in rendered(examples()[example]):
        if document["kind"] == "StatefulSet" and not document["metadata"]["name"].endswith("-replica"):
            return document["spec"]["template"]["spec"]["containers"][0]
    raise AssertionError("no StatefulSet")


def args(example):
    spec = container(example)
    env = {row["name"]: row.get("value") for row in spec["env"]}
    print(json.dumps({"args": spec["args"], "env": env}))


def expressions():
    """Every query of the rules and the dashboard."""
    for document in rendered(examples()["primary"]):
        if document["kind"] == "PrometheusRule":
            for group in document["spec"]["groups"]:
                yield from (rule["expr"] for rule in group["rules"])
        elif is_dashboard(document):
            for panel in json.loads(document["data"]["kara.json"])["panels"]:
                yield from (target["expr"] for target in panel["targets"])


def queries(names):
    known = set(pathlib.Path(names).read_text().split()) | {"up"}
    count = 0
    for expression in expressions():
        # Grafana's variables stand for a duration and for patterns.
        query = expression.replace("$__rate_interval", "5m")
        promql_parser.parse(query)
        without = re.sub(r"\{[^}]*\}|\[[^]]*\]|\b(by|without)\s*\([^)]*\)", " ", query)
        for name in re.findall(r"\b(?:redis|valkey|kara|up)(?:_\w+)?\b", without):
            assert name in known, f"{name} in {expression}"
            count += 1
    assert count > 30, count
    print(f"{count} names")


def write():
    for name, values in examples().items():
        (MANIFESTS / f"{name}.yaml").write_text(manifest(name, values))
        print(MANIFESTS / f"{name}.yaml")


if __name__ == "__main__":
    helm_python.disable_logging()
    {"check": check, "write": write, "args": args, "queries": queries}[sys.argv[1]](*sys.argv[2:])
