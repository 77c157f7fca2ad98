/** Endpoints come from options, names and files, and stay while what names them is away. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, expect, it } from "vitest"
import { EndpointWatch, endpointOf, parseAddress, parseEndpoints } from "./endpoints.ts"

const folder = mkdtempSync(join(tmpdir(), "slos-serve-endpoints-"))
const file = join(folder, "endpoints.yaml")
afterEach(() => rmSync(file, { force: true }))

it.each([
  ["10.0.0.1:8000", "10.0.0.1:8000"],
  [" vllm.default.svc:1 ", "vllm.default.svc:1"],
  ["[::1]:65535", "[::1]:65535"],
])("reads %s", (text, endpoint) => {
  expect(endpointOf(parseAddress(text))).toBe(endpoint)
})

it.each([
  "",
  "host",
  "host:",
  ":80",
  "host:0",
  "host:65536",
  "::1:80",
  "[x]:80",
  "http://h:80",
  "h:80/v1",
  "a b:80",
])("refuses %j", (text) => expect(() => parseAddress(text)).toThrow(/host:port/))

it("reads llm-d's file and plain lists, and tells where a fault is", () => {
  const both = `
endpoints:
  - 10.0.0.1:8000
  - {name: vllm-1, address: 10.0.0.2, port: "8000", labels: {model: llama}}
`
  expect(parseEndpoints(both, "f").map(endpointOf)).toEqual(["10.0.0.1:8000", "10.0.0.2:8000"])
  expect(parseEndpoints("", "f")).toEqual([])
  expect(() => parseEndpoints("endpoints: {}", "f")).toThrow(/^f: endpoints/)
  expect(() => parseEndpoints("endpoints: [{address: a}]", "f")).toThrow(/^f: endpoints.0/)
  expect(() => parseEndpoints("endpoints: [nope]", "f")).toThrow(/^f: endpoint "nope"/)
  expect(() => parseEndpoints("a: [", "f")).toThrow(/^f: /)
})

it("asks names for all their addresses, once each, and keeps them while the name server is away", async () => {
  const warnings: string[] = []
  let away = false
  const resolve = async (host: string) => {
    if (away) throw Object.assign(new Error("away"), { code: "EAI_AGAIN" })
    return host === "pods" ? ["10.0.0.2", "10.0.0.1", "fd00::1"] : ["10.0.0.1"]
  }
  const given = ["pods:80", "same:80", "10.9.9.9:81"].map(parseAddress)
  const watch = new EndpointWatch({ given, file: null }, (text) => warnings.push(text), resolve)
  const all = ["10.0.0.1:80", "10.0.0.2:80", "10.9.9.9:81", "[fd00::1]:80"]
  expect(await watch.read()).toEqual(all)
  away = true
  expect(await watch.read()).toEqual(all)
  expect(await watch.read()).toEqual(all)
  expect(warnings).toEqual(["pods", "same"].map((name) => `cannot resolve ${name} (EAI_AGAIN); trying again`))
})

it("follows a file, and keeps the last good one", async () => {
  const warnings: string[] = []
  writeFileSync(file, "endpoints: [10.0.0.1:80]")
  const watch = new EndpointWatch({ given: [], file }, (text) => warnings.push(text))
  const first = await watch.read()
  expect(first).toEqual(["10.0.0.1:80"])
  const changes: string[][] = []
  watch.follow(5, (endpoints) => changes.push(endpoints), first)
  writeFileSync(file, "endpoints: [10.0.0.1:80, 10.0.0.2:80]")
  await expect.poll(() => changes).toEqual([["10.0.0.1:80", "10.0.0.2:80"]])
  writeFileSync(file, "endpoints: 5")
  await expect.poll(() => warnings.length).toBe(1)
  expect(warnings[0]).toMatch(/stay as they were/)
  rmSync(file)
  await expect.poll(() => warnings.length).toBe(2)
  writeFileSync(file, "endpoints: []")
  await expect.poll(() => changes.at(-1)).toEqual([])
  watch.close()
})

it("refuses a file that is wrong from the start", async () => {
  const watch = new EndpointWatch({ given: [], file: join(folder, "none.yaml") }, () => {})
  await expect(watch.read()).rejects.toThrow(/cannot read the endpoints .*ENOENT/)
})
