/** The Helm chart: what it renders is what is committed, Kubernetes' objects fit together, and our own programs take the
 * arguments and the config that it gives them. Without helm the committed renderings are checked. */
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { Command } from "commander"
import { afterEach, describe, expect, it, vi } from "vitest"
import { parseAllDocuments } from "yaml"
import { register as registerPicker } from "../src/cli/endpoint-picker.ts"
import { register as registerServe } from "../src/cli/serve.ts"
import { parseSloClasses } from "../src/config/file.ts"
import { cases, headOf, helm, lint, RENDERED, render } from "./render.ts"

interface Container {
  name: string
  args: string[]
  env?: Fields[]
  resources: { requests: Labels; limits: Labels }
  ports: { name: string }[]
  volumeMounts: { name: string }[]
}
// biome-ignore lint/suspicious/noExplicitAny: objects of many kinds, of which little is looked at
type Fields = any
interface Kube {
  kind: string
  apiVersion: string
  metadata: { name: string; labels: Labels }
  spec: Fields
  data?: Fields
  stringData?: Fields
}
type Labels = Record<string, string>

const committed = (name: string) => readFileSync(join(RENDERED, `${name}.yaml`), "utf8")
const objectsIn = (text: string): Kube[] =>
  parseAllDocuments(text).flatMap((document) => {
    expect(document.errors).toEqual([])
    const object = document.toJS() as Kube | null
    return object === null ? [] : [object]
  })
const containerOf = ({ spec }: Kube): Container => spec.template.spec.containers[0]
const resourcesOf = (text: string) =>
  objectsIn(text)
    .filter(({ kind }) => kind === "Deployment")
    .map(containerOf)
    .find(({ name }) => name === "gateway")?.resources
const selects = (selector: Labels, labels: Labels) =>
  Object.entries(selector).every(([key, value]) => labels[key] === value)

const hasHelm = helm("version") !== null
if (!hasHelm)
  process.stderr.write("chart.test.ts: there is no helm ($HELM); the committed renderings are checked\n")

describe.skipIf(!hasHelm)("helm", () => {
  it.each(cases)("finds no fault, and renders what is committed: %s", (name) => {
    expect(lint(name)).toMatch(/0 chart\(s\) failed/)
    expect(render(name), "render again: node deploy/render.ts").toBe(committed(name))
  })

  it.each<[string[], RegExp]>([
    [["--set", "vllm.enabled=false,scaling.kind=none"], /no engine to stand in front of/],
    [["--set", "vllm.enabled=false", "--set-json", 'backends=[{"url":"http://a"}]'], /nothing to scale/],
    [["--set", "gateway.enabled=false"], /scaling follows the gateway's forecast/],
    [["--set", "scaling.kind=vpa"], /value must be one of 'none', 'hpa', 'keda'/],
    [["--set", "scaling.target=90"], /maximum/],
    [["--set", "gateway.replica=3"], /additional properties 'replica' not allowed/],
    [["--set-json", 'backends=[{"url":"10.0.0.7:8000"}]'], /does not match pattern/],
    [["--set", "config.backends=x"], /at '\/config'/],
    [["--set", "gateway.processes=0"], /at .\/gateway\/processes/],
    [["--set-json", 'gateway.args=["--gateways","4"]'], /gateway.args has --gateways: say gateway.processes/],
    [["--set-json", 'gateway.args=["--gateways=4"]'], /gateway.args has --gateways: say gateway.processes/],
    [["--set", "config.server.gateways=4"], /config.server.gateways: say gateway.processes/],
    [
      ["--set", "gateway.autoscaling.minReplicas=7"],
      /gateway.autoscaling: minReplicas is 7, and maxReplicas 6/,
    ],
    [["--set", "gateway.autoscaling.minReplicas=1"], /minAvailable is 1 of 1 gateways: no node/],
    [["--set", "scaling.minReplicas=13"], /scaling: minReplicas is 13, and maxReplicas 12/],
    [["--set", "gateway.peers.secret=short"], /at .\/gateway\/peers\/secret/],
    [["--set", "gateway.peers.port=8080"], /gateway.port and gateway.peers.port are both 8080/],
    [["--set", "gateway.port=null"], /at .\/gateway.*missing property .port/],
    [["--set", "gateway=null"], /missing property .gateway/],
    [["--set-json", 'backends=[{"url":"http://a"},{"url":"http://a/"}]'], /backends has http:\/\/a twice/],
    [["--set-json", 'backends=[{"url":"http://a","models":{"a,b":"c"}}]'], /invalid propertyName 'a,b'/],
    [["--set", "picker.enabled=true,picker.port=9090"], /picker.port and picker.metricsPort are both 9090/],
    [["--set", "scaling.kind=none,vllm.enabled=false,gateway.enabled=false"], /nothing to install/],
  ])("refuses %j with a reason", (args, reason) => {
    expect(() => render("vllm-keda", ...args)).toThrow(reason)
  })

  it("takes so much for each process of a gateway, and what is named in its place", () => {
    const four = ["--set", "gateway.processes=4"]
    expect(resourcesOf(render("vllm-keda", ...four)!)).toEqual({
      requests: { cpu: "4", memory: "2048Mi" },
      limits: { memory: "8Gi" },
    })
    const named = 'gateway.resources={"requests":{"cpu":"500m"},"limits":{"memory":null}}'
    expect(resourcesOf(render("vllm-keda", ...four, "--set-json", named)!)).toEqual({
      requests: { cpu: "500m", memory: "2048Mi" },
      limits: {},
    })
  })

  it("has gateways tell each other where there may be several, or where that is said", () => {
    const peering = (...args: string[]) => {
      const objects = objectsIn(render("remote-hpa", ...args)!)
      const gateway = objects.find(({ kind }) => kind === "Deployment")!
      const { args: said, env } = containerOf(gateway)
      const secret = env?.find(({ name }) => name === "PEER_SECRET")?.valueFrom.secretKeyRef.name
      const policy = objects.find(({ kind }) => kind === "NetworkPolicy")!
      const may = ["ingress", "egress"].map((way) => JSON.stringify(policy.spec[way]).includes('"peers"'))
      const service = objects.some(
        ({ metadata, kind }) => kind === "Service" && metadata.name.endsWith("-peers"),
      )
      const drawn = objects.find(({ kind }) => kind === "Secret")?.stringData?.secret
      expect(said.includes("--peer")).toBe(service)
      expect(may).toEqual([service, service])
      return { service, secret, drawn }
    }
    const none = { service: false, secret: undefined, drawn: undefined }
    expect(peering()).toEqual(none)
    expect(peering("--set", "gateway.replicas=2,gateway.peers.enabled=false")).toEqual(none)
    for (const on of [
      "gateway.replicas=2",
      "gateway.autoscaling.enabled=true",
      "gateway.peers.enabled=true",
    ]) {
      const { service, secret, drawn } = peering("--set", on)
      expect({ service, secret }).toEqual({ service: true, secret: "slos-slos-serve-peers" })
      expect(drawn).toMatch(/^[A-Za-z0-9]{48}$/)
    }
    expect(peering("--set", "gateway.replicas=2,gateway.peers.existingSecret=ours")).toEqual({
      ...{ service: true, secret: "ours", drawn: undefined },
    })
  })

  it("names a backend's every setting in its argument", () => {
    const text = render("remote-hpa", "--set", "backends[0].priority=true")!
    expect(text).toContain('"sglang=http://sglang-headless.engines.svc:30000,weight=2,priority"')
    expect(text).toContain('"openai=https://api.example.com/v1,model=small:gpt-small,key_env=UPSTREAM_KEY"')
  })
})

/** What this program's option parser says to the arguments. */
function takes(register: (program: Command) => void, [name, ...args]: string[]): string[] {
  const program = new Command()
  register(program)
  const command = program.commands.find((one) => one.name() === name)!
  command.exitOverride()
  const { operands, unknown } = command.parseOptions(args)
  return [...operands, ...unknown]
}

afterEach(() => {
  vi.unstubAllEnvs()
})

describe.each(cases)("what is rendered for %s", (name) => {
  const objects = objectsIn(committed(name))
  const of = (kind: string) => objects.filter((object) => object.kind === kind)
  const podsOf = (labels: Labels) =>
    of("Deployment").filter(({ spec }) => selects(labels, spec.template.metadata.labels))
  const portsOf = (pods: Kube[]) => pods.flatMap((pod) => containerOf(pod).ports.map((port) => port.name))

  it("is of the chart as it is", () => {
    expect(committed(name).split("\n")[0], "render again: node deploy/render.ts").toBe(headOf(name))
    const names = objects.map(({ kind, metadata }) => `${kind} ${metadata.name}`)
    expect(new Set(names).size).toBe(names.length)
  })

  it("has pods that its services, policies, budgets and monitors find", () => {
    for (const { spec } of of("Deployment"))
      expect(selects(spec.selector.matchLabels, spec.template.metadata.labels)).toBe(true)
    for (const { spec, metadata } of of("Service")) {
      const pods = podsOf(spec.selector)
      expect(pods, metadata.name).toHaveLength(1)
      for (const { targetPort } of spec.ports) expect(portsOf(pods)).toContain(targetPort)
    }
    for (const { spec } of of("PodDisruptionBudget"))
      expect(podsOf(spec.selector.matchLabels)).toHaveLength(1)
    for (const { spec } of of("NetworkPolicy")) {
      const pods = podsOf(spec.podSelector.matchLabels)
      expect(pods).toHaveLength(1)
      for (const { ports } of spec.ingress)
        for (const { port } of ports) expect(portsOf(pods)).toContain(port)
    }
    for (const { spec } of of("ServiceMonitor")) {
      const services = of("Service").filter(({ metadata }) =>
        selects(spec.selector.matchLabels, metadata.labels),
      )
      expect(services).toHaveLength(1)
      const ports = services[0]!.spec.ports.map((port: { name: string }) => port.name)
      for (const { port } of spec.endpoints) expect(ports).toContain(port)
    }
    for (const { spec } of of("InferencePool")) {
      expect(podsOf(spec.selector.matchLabels)).toHaveLength(1)
      expect(of("Service").map(({ metadata }) => metadata.name)).toContain(spec.endpointPickerRef.name)
    }
  })

  it("has every volume, config and account that its pods name", () => {
    const accounts = of("ServiceAccount").map(({ metadata }) => metadata.name)
    const configs = of("ConfigMap").map(({ metadata }) => metadata.name)
    const secrets = of("Secret").map(({ metadata }) => metadata.name)
    for (const pod of of("Deployment")) {
      const own = containerOf(pod).env?.find((one) => one.name === "PEER_SECRET")
      if (own) expect(secrets).toContain(own.valueFrom.secretKeyRef.name)
      const { volumes, serviceAccountName } = pod.spec.template.spec
      const known = volumes.map((volume: { name: string }) => volume.name)
      for (const mount of containerOf(pod).volumeMounts) expect(known).toContain(mount.name)
      for (const { configMap } of volumes) if (configMap) expect(configs).toContain(configMap.name)
      if (serviceAccountName !== undefined) expect(accounts).toContain(serviceAccountName)
    }
  })

  it("gives our programs arguments that they take", () => {
    // As the chart's secret sets it.
    vi.stubEnv("UPSTREAM_KEY", "x")
    const ours = of("Deployment")
      .map(containerOf)
      .filter((container) => container.name !== "vllm")
    expect(ours.length).toBeGreaterThan(0)
    for (const { name: program, args } of ours)
      expect(takes(program === "picker" ? registerPicker : registerServe, args)).toEqual([])
  })

  it("has gateways tell each other under a name that the chart has, with a secret that they have", () => {
    for (const { args, env, ports } of of("Deployment").map(containerOf)) {
      const peer = args[args.indexOf("--peer") + 1]
      if (!args.includes("--peer")) continue
      const services = of("Service").filter(({ spec }) => spec.clusterIP === "None")
      const found = services.find(
        ({ metadata, spec }) => peer === `${metadata.name}.serving.svc:${spec.ports[0].port}`,
      )
      expect(found?.spec.publishNotReadyAddresses).toBe(true)
      expect(String(found?.spec.ports[0].port)).toBe(args[args.indexOf("--peer-port") + 1])
      expect(ports.map((port) => port.name)).toContain("peers")
      expect(args[args.indexOf("--peer-secret") + 1]).toBe("env:PEER_SECRET")
      expect(env?.map((one) => one.name)).toContain("PEER_SECRET")
    }
    if (name === "vllm-keda") expect(JSON.stringify(of("Deployment"))).toContain('"--peer"')
  })

  it("asks for a core for each process of a gateway", () => {
    for (const { name: program, args, resources } of of("Deployment").map(containerOf))
      if (program === "gateway") expect(args[args.indexOf("--gateways") + 1]).toBe(resources.requests.cpu)
  })

  it("has a config that the server reads", () => {
    for (const { data } of of("ConfigMap"))
      expect(parseSloClasses(data["config.yaml"], "config.yaml").all.length).toBeGreaterThan(0)
  })

  it("scales what is there by the signal that the gateway has", () => {
    const gauges = readFileSync(join(import.meta.dirname, "../src/telemetry/scale-gauges.ts"), "utf8")
    for (const { spec } of [...of("ScaledObject"), ...of("HorizontalPodAutoscaler")]) {
      const { kind, name: target } = spec.scaleTargetRef
      if (name !== "remote-hpa") expect(of(kind).map(({ metadata }) => metadata.name)).toContain(target)
      // Else the chart and the autoscaler would each have a number of their own.
      const scaled = of(kind).find(({ metadata }) => metadata.name === target)
      expect(scaled?.spec.replicas).toBeUndefined()
      const metric = JSON.stringify(spec).match(/slos_serve_\w+/)?.[0]
      if (metric !== undefined) expect(gauges).toContain(`"${metric}"`)
      const service = JSON.stringify(spec).match(/service(?:=\\?\\?"|":")([\w-]+)/)?.[1]
      if (service !== undefined) expect(of("Service").map(({ metadata }) => metadata.name)).toContain(service)
    }
  })
})
