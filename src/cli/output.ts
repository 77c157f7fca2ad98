/** Result files that a command is asked for with --out, --report and the like. */
import { closeSync, existsSync, mkdirSync, openSync, rmSync, writeFileSync } from "node:fs"
import { dirname } from "node:path"
import { UserError } from "../errors.ts"
import { loadVega } from "../study/vega.ts"

/** Writes a result file, making its folder. */
export function writeResult(path: string, text: string): void {
  into(path, () => writeFileSync(path, text))
}

/** Before long work: its result must not be lost because the file cannot be written. */
export function checkWritable(path: string | undefined): void {
  if (path === undefined) return
  into(path, () => {
    const isNew = !existsSync(path)
    closeSync(openSync(path, "a"))
    if (isNew) rmSync(path)
  })
}

/** Before long work as well: charts at its end need packages that are optional. */
export async function checkCharts(path: string | undefined): Promise<void> {
  if (path !== undefined) await loadVega()
}

function into(path: string, write: () => void): void {
  try {
    mkdirSync(dirname(path), { recursive: true })
    write()
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    throw new UserError(`cannot write ${path} (${code}); choose another file`, { cause: error })
  }
}
