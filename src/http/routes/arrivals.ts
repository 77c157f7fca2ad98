/** GET /v1/slo/arrivals: the arrivals of the last minutes as numbers, for `slos-serve advise`. */
import { Readable } from "node:stream"
import { setImmediate as otherWork } from "node:timers/promises"
import type { FastifyInstance } from "fastify"
import { userError } from "../../errors.ts"
import { linesOf } from "../../scale/recording-file.ts"
import { ARRIVALS, recordedFleet, toldArrivals } from "../../serve/scale.ts"
import type { Service } from "../../serve/service.ts"
import { askingAll, type Siblings } from "../../siblings/siblings.ts"

/** Between them the server does other things. */
const LINES_A_PIECE = 128

export function arrivalRoutes(app: FastifyInstance, ready: () => Service, siblings: Siblings | null): void {
  const all = askingAll(siblings, ARRIVALS, () => toldArrivals(ready()))
  app.get("/v1/slo/arrivals", async (_request, reply) => {
    const service = ready()
    const recorded = recordedFleet(service, await all(null))
    if (recorded === null) throw userError("not_ready", { detail: "no replica is known yet" })
    return reply
      .headers({ "content-type": "application/x-ndjson", "cache-control": "no-store" })
      .send(Readable.from(pieces(linesOf(recorded))))
  })
}

async function* pieces(lines: Iterable<string>): AsyncGenerator<string, void, void> {
  let piece = ""
  let count = 0
  for (const line of lines) {
    piece += line
    if (++count % LINES_A_PIECE !== 0) continue
    yield piece
    piece = ""
    await otherWork()
  }
  if (piece !== "") yield piece
}
