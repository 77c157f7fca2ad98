/** A gateway before replicas on other ports: the server's own parts (its HTTP API, fleet, and replicas over the wire), joined
 * as `serve` joins them. Arguments: its port, and the URL of each replica. */
import { defaultSloClasses } from "../../../src/config/slo-classes.ts"
import { Fleet } from "../../../src/fleet/fleet.ts"
import { FleetFront } from "../../../src/fleet/fleet-front.ts"
import { RemoteReplica } from "../../../src/fleet/remote-replica.ts"
import { buildServer } from "../../../src/http/server.ts"
import { Service, ServiceHost } from "../../../src/serve/service.ts"
import { Tenants } from "../../../src/serve/tenants.ts"

const [port, ...urls] = process.argv.slice(2)
const log = (message: string) => console.error(message)
const hosts = urls.map((url, i) => new RemoteReplica({ name: `r${i}`, url, log }))
const first = await new Promise<RemoteReplica>((resolve) => {
  for (const host of hosts) host.onState(() => host.state === "ready" && resolve(host))
})
const tenants = new Tenants()
const fleet = new Fleet({ hosts, router: { kind: "offer", affinity: true, reoffers: 3 }, log })
const front = new FleetFront({ fleet, hosts, info: first.info!, maxQueue: 2048, tenants })
const service = new Service({ front, classes: defaultSloClasses(), policy: "gateway", tenants })
const host = new ServiceHost(tenants)
host.ready(service)
const app = buildServer({ host })
await app.listen({ host: "127.0.0.1", port: Number(port) })
