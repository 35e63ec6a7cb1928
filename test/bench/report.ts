/** Collects the rows as they are measured, each with what others used of the machine meanwhile. */
import { watchForeignLoad } from "./processor-time.ts";
import { type MeasuredRow, type Row, verdictOf } from "./table.ts";

export class Report {
  readonly rows: MeasuredRow[] = [];

  /** Measures something. Its rows are shown at once, in short, and kept for the table. */
  async measure(work: () => Promise<readonly Row[]>): Promise<void> {
    const foreignLoad = watchForeignLoad();
    const rows = await work();
    const foreign = foreignLoad();
    for (const row of rows) {
      const measured = { ...row, foreign };
      this.rows.push(measured);
      const ratio = row.ratio === undefined ? "" : ` ratio ${row.ratio.toFixed(2)}`;
      console.error(`  ${row.measure}: ${row.value}${ratio} ${verdictOf(measured)}`);
    }
  }
}
