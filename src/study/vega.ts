/** The packages that draw charts. They are an optional part: half of what an installation would take. */
import { UserError } from "../errors.ts"

export interface Drawing {
  vega: typeof import("vega")
  lite: typeof import("vega-lite")
}

/** Throws UserError with what to install where they are not there. */
export async function loadVega(): Promise<Drawing> {
  try {
    const [vega, lite] = await Promise.all([import("vega"), import("vega-lite")])
    return { vega, lite }
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== "ERR_MODULE_NOT_FOUND") throw cause
    throw new UserError(
      "charts are drawn by vega and vega-lite, which are not installed; add them beside slos-serve: " +
        "npm install vega@6 vega-lite@6",
      { code: "charts_missing", cause },
    )
  }
}
