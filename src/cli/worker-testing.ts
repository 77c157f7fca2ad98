/** What a worker is told first, where there is no config. */
import { emptyConfig } from "../config/file.ts"
import type { ServeOptions } from "./serve-options.ts"
import type { WorkerSetup } from "./serve-worker.ts"

export function setupOf(name: string, options: ServeOptions): WorkerSetup {
  return { name, options, apps: emptyConfig().classes.all.length, tenants: [], trustHeader: true }
}
