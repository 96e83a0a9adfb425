// Reads an object of Prometheus' operator as JSON and holds it against its schema.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const object = JSON.parse(readFileSync(0, "utf8"));
const folder = `${process.env.KARA_NODE}/node_modules/@kubernetes-models/prometheus-operator`;
const { [object.kind]: Model } = await import(pathToFileURL(`${folder}/${object.apiVersion}/${object.kind}.js`));
new Model(object).validate();
