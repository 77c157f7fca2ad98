/** The command as a user runs it: ready, serving gRPC and metrics, draining on SIGTERM; mistakes are one line. */
import { type ChildProcess, execFileSync, spawn, spawnSync } from "node:child_process"
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { credentials, makeGenericClientConstructor } from "@grpc/grpc-js"
import { service as healthService } from "grpc-health-check"
import { afterEach, expect, it } from "vitest"
import { parseAllDocuments } from "yaml"

const MAIN = join(import.meta.dirname, "main.ts")
const folder = mkdtempSync(join(tmpdir(), "slos-serve-picker-"))
const children: ChildProcess[] = []
afterEach(() => {
  for (const child of children.splice(0)) child.kill("SIGKILL")
})

interface Ready {
  grpc: string
  metrics: string | null
  endpoints: string[]
}

async function start(args: string[]): Promise<{ child: ChildProcess; ready: Ready; said: () => string }> {
  const own = ["--port", "0", "--metrics-port", "0", "--probe-every", "0"]
  const child = spawn(process.execPath, [MAIN, "endpoint-picker", ...own, ...args])
  children.push(child)
  let text = ""
  child.stdout!.on("data", (piece: Buffer) => (text += piece))
  child.stderr!.on("data", (piece: Buffer) => (text += piece))
  await expect.poll(() => text).toContain('"msg":"ready"')
  const line = text.split("\n").find((each) => each.includes('"ready"'))!
  return { child, ready: JSON.parse(line), said: () => text }
}

async function health(grpc: string, service: string, secure = credentials.createInsecure()): Promise<string> {
  const Client = makeGenericClientConstructor(healthService, "Health")
  const client = new Client(grpc, secure, { "grpc.ssl_target_name_override": "localhost" })
  const check = client.check!.bind(client) as (
    request: object,
    done: (error: Error | null, answer: { status: string }) => void,
  ) => void
  return new Promise<string>((resolve) =>
    check({ service }, (error, answer) => {
      client.close()
      resolve(error === null ? answer.status : error.message)
    }),
  )
}

it("serves health and metrics, follows its file, and stops in order", async () => {
  const file = join(folder, "endpoints.yaml")
  writeFileSync(file, "endpoints: [127.0.0.1:8001]")
  const { child, ready, said } = await start(["--endpoints-file", file])
  expect(ready.endpoints).toEqual(["127.0.0.1:8001"])
  for (const service of ["", "liveness", "readiness", "envoy.service.ext_proc.v3.ExternalProcessor"])
    expect(await health(ready.grpc, service)).toBe("SERVING")
  expect(await health(ready.grpc, "unheard")).toMatch(/NOT_FOUND/)
  expect(await (await fetch(ready.metrics!)).text()).toMatch(/slos_serve_picker_endpoints 1/)
  writeFileSync(file, "endpoints: [127.0.0.1:8001, 127.0.0.1:8002]")
  await expect.poll(async () => (await fetch(ready.metrics!)).text()).toMatch(/slos_serve_picker_endpoints 2/)
  child.kill("SIGTERM")
  const code = await new Promise((resolve) => child.once("exit", resolve))
  expect(code).toBe(0)
  expect(said()).toContain("stopped")
})

it("is ready once it has warmed up, of which its metrics say nothing", async () => {
  const { ready, said } = await start(["--endpoint", "127.0.0.1:8001", "--log-level", "debug"])
  expect(said()).toMatch(/warm: \d+ made-up requests/)
  expect((await fetch(ready.metrics!.replace("/metrics", "/health"))).status).toBe(200)
  const metrics = await (await fetch(ready.metrics!)).text()
  expect(metrics).toMatch(/^slos_serve_picker_endpoints 1$/m)
  expect(metrics).not.toMatch(/^slos_serve_picker_(picked|answered)_total.* [1-9]/m)
})

it("starts with the arguments of the Kubernetes example, before its pods have a name", async () => {
  const file = new URL("../../examples/inference-pool.yaml", import.meta.url)
  interface Document {
    kind: string
    spec: {
      endpointPickerRef?: { port: { number: number } }
      template?: { spec: { containers: Container[] } }
    }
  }
  interface Container {
    args: string[]
    ports: { containerPort: number }[]
  }
  const documents = parseAllDocuments(readFileSync(file, "utf8")).map((each) => each.toJS() as Document)
  const pool = documents.find(({ kind }) => kind === "InferencePool")!
  const { args, ports } = documents.find(({ kind }) => kind === "Deployment")!.spec.template!.spec
    .containers[0]!
  expect(ports[0]!.containerPort).toBe(pool.spec.endpointPickerRef!.port.number)
  const [command, ...rest] = args
  expect(command).toBe("endpoint-picker")
  const own = rest.map((arg) => arg.replace("0.0.0.0", "127.0.0.1").replace("vllm-pods", "vllm-pods.invalid"))
  const { ready, said } = await start(own)
  expect(await health(ready.grpc, "readiness")).toBe("SERVING")
  expect(said()).toMatch(/cannot resolve vllm-pods\.invalid/)
})

const HAS_OPENSSL = spawnSync("openssl", ["version"]).status === 0

it.skipIf(!HAS_OPENSSL)("serves over TLS, and wants a certificate where it was told so", async () => {
  const [cert, key] = ["tls.crt", "tls.key"].map((name) => join(folder, name)) as [string, string]
  const subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
  const made = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
  execFileSync("openssl", [...made, ...subject, "-keyout", key, "-out", cert, "-days", "2"], {
    stdio: "ignore",
  })
  const [ca, own] = [readFileSync(cert), readFileSync(key)]
  const tls = ["--endpoint", "127.0.0.1:8001", "--tls-cert", cert, "--tls-key", key]
  const open = await start(tls)
  expect(await health(open.ready.grpc, "", credentials.createSsl(ca))).toBe("SERVING")
  const closed = await start([...tls, "--tls-client-ca", cert])
  expect(await health(closed.ready.grpc, "", credentials.createSsl(ca))).not.toBe("SERVING")
  expect(await health(closed.ready.grpc, "", credentials.createSsl(ca, own, ca))).toBe("SERVING")
})

it.each([
  ["an endpoint with a scheme", ["--endpoint", "http://a:80"], /leave the scheme out/],
  ["an endpoint twice", ["-e", "1.2.3.4:80", "-e", "1.2.3.4:80"], /given twice/],
  [
    "a file that is not there",
    ["--endpoints-file", join(folder, "none")],
    /cannot read the endpoints .*ENOENT/,
  ],
  ["half of TLS", ["--tls-cert", "x"], /belong together/],
  ["TLS files that are none", ["--tls-cert", MAIN, "--tls-key", MAIN], /not a certificate and its key/],
  ["a client authority without TLS", ["--tls-client-ca", "x"], /needs --tls-cert/],
  ["a way to choose that is none", ["--by", "luck"], /Allowed choices are twins, load/],
])("%s is one line and exit code 2", (_what, args, message) => {
  const { status, stderr } = spawnSync(process.execPath, [MAIN, "endpoint-picker", "--port", "0", ...args])
  const text = stderr.toString()
  expect([status, text]).toEqual([2, expect.stringMatching(message)])
  expect(text).not.toMatch(/^\s+at /m)
})
