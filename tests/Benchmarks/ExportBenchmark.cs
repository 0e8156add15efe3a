using System.Diagnostics;
using System.Globalization;
using Tensormesh.Billing;

namespace Tensormesh.Benchmarks;

/// <summary>The FOCUS export of an account's charges, over Postgres' own copy of the same rows; and what memory it takes meanwhile.</summary>
internal static class ExportBenchmark
{
    private const int Rounds = 3;
    private const int SampleEvery = 50;

    public static async Task RunAsync(Workplace workplace, CancellationToken cancellation)
    {
        var server = await workplace.PostgresAsync(cancellation);
        await using var database = await Workplace.OpenBillingAsync(server, "billing", cancellation);
        var rows = await ReportBenchmark.FillAsync(database, ReportBenchmark.Now, cancellation);
        using var exports = new Exports(database);
        // Everything, as one open statement: no month of it is closed by this.
        var everything = new Statement(
            new(ReportBenchmark.Large), new(2026, 5), "UTC", new(ReportBenchmark.Now.AddDays(-100), ReportBenchmark.Now.AddDays(1)), 1, 0, long.MaxValue, null,
            Money.Zero, Money.Zero, [], "", "", null);
        var before = ProcessUsage.ResidentMegabytes(Environment.ProcessId);
        var (ours, floors, most) = (new List<double>(), new List<double>(), before);
        for (var round = 0; round < Rounds; round++)
        {
            var began = Stopwatch.GetTimestamp();
            await using (var counted = new Discarded(() => most = Math.Max(most, ProcessUsage.ResidentMegabytes(Environment.ProcessId))))
            {
                await exports.FocusAsync(everything, counted, cancellation);
            }

            ours.Add(rows / Stopwatch.GetElapsedTime(began).TotalSeconds);
            began = Stopwatch.GetTimestamp();
            await using (var connection = await database.OpenConnectionAsync(cancellation))
            {
                using var copy = await connection.BeginTextExportAsync(
                    "copy (select t.* from ledger_transaction t join ledger_account l on l.id = t.customer where l.account = 'large' order by t.position) to stdout", cancellation);
                var piece = new char[1 << 15];
                while (await copy.ReadAsync(piece, cancellation) > 0) { }
            }

            floors.Add(rows / Stopwatch.GetElapsedTime(began).TotalSeconds);
            Workplace.Say($"round {round + 1}: {ours[^1]:0} rows/s, copy {floors[^1]:0} rows/s, {most - before:0.0} MB more");
        }

        var of = rows.ToString(CultureInfo.InvariantCulture);
        workplace.Report("floor_ratio", Samples.Median(ours) / Samples.Median(floors), "ratio", ">=0.3", $"COPY (SELECT ...) TO STDOUT of the same {of} rows");
        workplace.Report("rss_mb", most - before, "MB", "<=100", $"growth of this process's resident memory while exporting {of} rows");
    }

    /// <summary>Takes bytes and keeps none.</summary>
    private sealed class Discarded(Action sample) : Stream
    {
        private int writes;

        public override bool CanRead => false;
        public override bool CanSeek => false;
        public override bool CanWrite => true;
        public override long Length => throw new NotSupportedException();
        public override long Position { get => throw new NotSupportedException(); set => throw new NotSupportedException(); }

        public override void Flush() { }

        public override int Read(byte[] buffer, int offset, int count) => throw new NotSupportedException();

        public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

        public override void SetLength(long value) => throw new NotSupportedException();

        public override void Write(byte[] buffer, int offset, int count)
        {
            if (++writes % SampleEvery == 0) sample();
        }

        public override ValueTask WriteAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default)
        {
            if (++writes % SampleEvery == 0) sample();
            return ValueTask.CompletedTask;
        }
    }
}
