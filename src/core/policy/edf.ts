/** Earliest due token first, without admission; `edf-drop` moves doomed requests to best-effort. The strongest
 * simple rivals: the same batches as ours, but none is turned down before it is too late (docs/design.md, Policies). */

import type { PolicyOptions } from "../options.ts"
import { fillBatch } from "../planner/fill.ts"
import { emptyWork, sortWork } from "../planner/work.ts"
import { demoteDoomed } from "./doomed.ts"
import type { Policy } from "./policy.ts"

function earliestDueFirst(name: string, drop: boolean, options: PolicyOptions): Policy {
  const work = emptyWork(options)
  return {
    name,
    decide(requests, batch, nowUs) {
      if (drop) demoteDoomed(requests, batch.context, nowUs)
      sortWork(requests, work)
      work.speculator.planFor(work, batch.context)
      fillBatch(batch, work, options, nowUs)
    },
  }
}

export const edf = (options: PolicyOptions): Policy => earliestDueFirst("edf", false, options)
export const edfDrop = (options: PolicyOptions): Policy => earliestDueFirst("edf-drop", true, options)
