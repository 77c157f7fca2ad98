/** The figure of bench/fleet/router.ts: capacity per GPU by the size of the fleet, a panel a scenario. */
import { writeFileSync } from "node:fs"
import { draw } from "../../src/study/charts.ts"
import type { Row } from "./router.ts"

export async function figure(rows: readonly Row[], path: string): Promise<void> {
  const plain = rows.filter(({ staleMs, paces }) => staleMs === 0 && paces.length === 1)
  const values = plain.map(({ seeds, ...row }) => ({
    ...row,
    low: Math.min(...seeds),
    high: Math.max(...seeds),
  }))
  const x = { field: "replicas", type: "quantitative", title: "replicas", scale: { type: "log", base: 2 } }
  const y = { type: "quantitative", scale: { zero: false } }
  const color = { field: "router", type: "nominal", title: null }
  const svg = await draw({
    data: { values },
    facet: { column: { field: "scenario", type: "nominal", title: null } },
    resolve: { scale: { y: "independent" } },
    spec: {
      width: 260,
      height: 240,
      layer: [
        {
          mark: { type: "line", point: true },
          encoding: { x, y: { ...y, field: "perGpu", title: "requests/s and GPU" }, color },
        },
        {
          mark: { type: "rule", opacity: 0.5 },
          encoding: { x, y: { ...y, field: "low" }, y2: { field: "high" }, color },
        },
      ],
    },
  })
  writeFileSync(path, svg)
}
