/** What admission counts with besides the prompts that it chooses from. */
import type { LiveRequest } from "../request.ts"
import type { Speculator } from "./speculation/speculator.ts"

/** What runs, and how it speculates. */
export interface Running {
  decodes: readonly LiveRequest[]
  /** Best-effort requests that are served like these, at their pace from now on. */
  overdue: readonly LiveRequest[]
  speculator: Speculator
  /** Of the time that batches could last, the share that SLO work has filled of late. */
  slackNeeded: number
}
