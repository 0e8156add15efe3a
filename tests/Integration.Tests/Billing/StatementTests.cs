using System.Globalization;
using System.Text;
using Npgsql;
using Tensormesh.Billing;

namespace Tensormesh.Integration.Tests.Billing;

/// <summary>Statements and exports against a list in memory of what was posted. Equal means to the nano.</summary>
public sealed class StatementTests(PostgresFixture postgres) : BillingTest(postgres)
{
    private static readonly string[] Zones = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu"];

    private readonly List<Movement> posted = [];
    private int keys;

    private Exports Exports => new(Database);

    private Statements Statements => new(Database);

    [Fact]
    public async Task A_closed_month_never_changes_and_what_comes_late_is_a_correction_in_the_open_one()
    {
        await DeclareAsync(Acme);
        var march = new BillingMonth(2026, 3);
        await PostAsync(MovementType.TopUp, 1000, T0);
        await PostAsync(MovementType.GpuUsage, -100, T0.AddDays(1));
        // Of April, and there when March is closed.
        var april = new DateTimeOffset(2026, 4, 1, 1, 0, 0, TimeSpan.Zero);
        await PostAsync(MovementType.GpuUsage, -7, april);

        var early = (await Statements.ReadAsync(Acme, april.AddHours(2), Cancellation))!;
        Assert.Equal([march, march.Next], early.Select(one => one.Month));
        Assert.All(early, one => Assert.Null(one.ClosedAt));
        Assert.Equal((new Money(900), new Money(893)), (early[0].ClosingBalance, early[1].ClosingBalance));

        var first = (await Statements.ReadAsync(Acme, april.AddHours(6), Cancellation))!;
        Assert.NotNull(first[0].ClosedAt);
        Assert.Equal(first[0].ComputeHash(), first[0].Hash);
        Assert.Equal((new Money(900), new Money(900), new Money(893)), (first[0].ClosingBalance, first[1].OpeningBalance, first[1].ClosingBalance));

        await PostAsync(MovementType.GpuUsageCorrection, 30, T0.AddDays(2));
        var then = (await Statements.ReadAsync(Acme, april.AddDays(1), Cancellation))!;
        AssertSame([first[0]], [then[0]]);
        Assert.Equal(
            [new StatementLine("GpuUsage", false, 1, new(-7)), new StatementLine("GpuUsageCorrection", true, 1, new(30))], then[1].Lines);
        Assert.Equal(new Money(923), then[1].ClosingBalance);

        // Two months later, by eight at once: each closed once, each going on from the one before.
        var all = await Task.WhenAll(Enumerable.Range(0, 8).Select(_ => Statements.ReadAsync(Acme, april.AddMonths(2).AddHours(6), Cancellation)));
        Assert.All(all, one => Assert.Equal(all[0]!.Select(statement => statement.Hash), one!.Select(statement => statement.Hash)));
        Assert.Equal(3, all[0]!.Count(one => one.ClosedAt is not null));
        Assert.Equal(all[0]![0].Hash, all[0]![1].PreviousHash);
        Assert.Equal(await PostedAsync(), all[0]![^1].ClosingBalance);
        await Assert.ThrowsAsync<PostgresException>(() => ExecuteAsync("update statement set closing_balance_nanos = 0"));
        await GiveBackAsync();
    }

    [Theory]
    [InlineData(11)]
    [InlineData(12)]
    public async Task Each_transaction_is_on_one_statement_and_the_export_has_the_same_sums(int seed)
    {
        var random = new Random(seed);
        await Accounts.DeclareAsync(Acme, new AccountPolicy("Acme", null, null, Zones[seed % Zones.Length]), Cancellation);
        await PostAsync(MovementType.TopUp, 1_000_000_000_000, T0.AddDays(-100));
        IReadOnlyList<Statement> statements = [];
        for (var day = -80; day <= 60; day += 20)
        {
            for (var i = 0; i < 15; i++)
            {
                var one = Usage(random);
                Assert.IsType<PostResult.Posted>(await Ledger.PostAsync(one, Cancellation));
                posted.Add(one);
            }

            var closed = statements.Where(one => one.ClosedAt is not null).ToList();
            statements = (await Statements.ReadAsync(Acme, T0.AddDays(day), Cancellation))!;
            AssertSame(closed, statements.Take(closed.Count));
        }

        // Far enough ahead that all of it has taken effect.
        statements = (await Statements.ReadAsync(Acme, T0.AddDays(70), Cancellation))!;
        Assert.Equal(posted.Count, statements.Sum(one => one.Lines.Sum(line => line.Transactions)));
        Assert.Equal(await PostedAsync(), statements[^1].ClosingBalance);
        var ids = new List<string>();
        foreach (var statement in statements)
        {
            var rows = await FocusAsync(statement);
            ids.AddRange(rows.Select(row => row["x_TransactionId"]));
            Assert.Equal(
                statement.Lines.Where(line => line.Type.StartsWith("Gpu", StringComparison.Ordinal)).Aggregate(Money.Zero, (sum, line) => sum - line.Amount),
                rows.Aggregate(Money.Zero, (sum, row) => sum + Money.Parse(row["BilledCost"])));
        }

        Assert.Equal(posted.Count(one => one.Type.ToString().StartsWith("Gpu", StringComparison.Ordinal)), ids.Distinct().Count());
        Assert.Equal(ids.Count, ids.Distinct().Count());
        await GiveBackAsync();
    }

    /// <summary>The columns that FOCUS 1.2 asks of every provider, and what it asks of their values.</summary>
    [Fact]
    public async Task The_focus_export_has_every_mandatory_column_with_a_value_of_its_kind()
    {
        string[] mandatory =
        [
            "BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd", "BillingPeriodStart", "ChargeCategory",
            "ChargeClass", "ChargeDescription", "ChargePeriodEnd", "ChargePeriodStart", "ContractedCost", "EffectiveCost", "InvoiceIssuerName", "ListCost",
            "PricingQuantity", "PricingUnit", "ProviderName", "PublisherName", "ServiceCategory", "ServiceName",
        ];
        string[] mayBeEmpty = ["ChargeClass", "PricingQuantity", "PricingUnit"];
        await PublishAsync(T0.AddDays(-1), (H100, "2.50"));
        await OpenAsync(Acme, "100.00");
        var (_, pod) = await RunAsync(2, T0);
        await Meter.SettleAsync(Acme, T0.AddMinutes(30), Cancellation);
        await Runs.CloseAsync(pod, T0.AddMinutes(20), Cancellation);
        var statement = (await Statements.ReadAsync(Acme, T0.AddHours(1), Cancellation))!.First(one => one.Month == new BillingMonth(2026, 3));
        var rows = await FocusAsync(statement);
        Assert.Equal(2, rows.Count);
        Assert.Equal(mandatory, rows[0].Keys.Take(mandatory.Length));
        foreach (var row in rows)
        {
            Assert.All(mandatory.Except(mayBeEmpty), column => Assert.NotEqual("", row[column]));
            Assert.All(new[] { "BilledCost", "ContractedCost", "EffectiveCost", "ListCost" }, column => Assert.True(Money.TryParse(row[column], out _)));
            Assert.All(new[] { "BillingPeriodStart", "BillingPeriodEnd", "ChargePeriodStart", "ChargePeriodEnd" },
                column => Assert.Matches(@"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$", row[column]));
            Assert.Contains(row["ChargeCategory"], new[] { "Usage", "Purchase", "Tax", "Credit", "Adjustment" });
            Assert.Contains(row["ChargeClass"], new[] { "", "Correction" });
            Assert.Equal("USD", row["BillingCurrency"]);
            Assert.Equal("AI and Machine Learning", row["ServiceCategory"]);
            // A price times a quantity is the cost, but for the nano that a running total carries from one window into the next.
            var product = decimal.Parse(row["PricingQuantity"], CultureInfo.InvariantCulture) * decimal.Parse(row["ListUnitPrice"], CultureInfo.InvariantCulture);
            Assert.InRange(decimal.Parse(row["ListCost"], CultureInfo.InvariantCulture) - product, -0.000000001m, 0.000000001m);
        }

        Assert.Equal(("2.5", "1"), (rows[0]["BilledCost"], rows[0]["PricingQuantity"]));
        Assert.Equal("2026-03-01T12:00:00.000000Z", rows[0]["ChargePeriodStart"]);
    }

    [Fact]
    public async Task The_export_of_transactions_has_each_of_the_period_with_its_amount_to_the_nano()
    {
        await DeclareAsync(Acme);
        await PostAsync(MovementType.TopUp, 1_000_000_000_001, T0);
        await PostAsync(MovementType.GpuUsage, -1, T0.AddHours(1));
        await PostAsync(MovementType.GpuUsage, -2, T0.AddDays(40));
        using var file = new MemoryStream();
        Assert.True(await Exports.TransactionsAsync(Acme, AccountCalendar.Utc.MonthAt(new(2026, 3)), file, Cancellation));
        var rows = Csv(file);
        Assert.Equal(["1000.000000001", "-0.000000001"], rows.Select(row => row["Amount"]));
        Assert.Equal(["TopUp", "GpuUsage"], rows.Select(row => row["Type"]));
        Assert.False(await Exports.TransactionsAsync(new("nobody"), AccountCalendar.Utc.MonthAt(new(2026, 3)), file, Cancellation));
        await GiveBackAsync();
    }

    /// <summary>Whatever is on them: the hash is over all of it.</summary>
    private static void AssertSame(IEnumerable<Statement> expected, IEnumerable<Statement> found) => Assert.Equal(
        expected.Select(one => (one.Hash, one.ComputeHash(), one.CarriedFrom, one.ClosedAt)), found.Select(one => (one.Hash, one.ComputeHash(), one.CarriedFrom, one.ClosedAt)));

    private static Money Of(Movement one) => one.Entries.Where(entry => entry.LedgerAccount == "customer:acme").Aggregate(Money.Zero, (sum, entry) => sum + entry.Amount);

    /// <summary>Within 70 days around T0; every other one at the edge of a quarter of an hour, or a microsecond from it.</summary>
    private static DateTimeOffset At(Random random) => random.Next(2) == 0
        ? T0.AddMicroseconds(random.NextInt64(-3_000_000_000_000, 3_000_000_000_000))
        : T0.AddMinutes(15 * random.Next(-3_300, 3_300)).AddMicroseconds(random.Next(-1, 2));

    private Movement Usage(Random random)
    {
        var type = random.GetItems([MovementType.GpuUsage, MovementType.GpuUsage, MovementType.GpuUsageCorrection, MovementType.GpuFaultCredit, MovementType.TopUp], 1)[0];
        var amount = random.NextInt64(1, 1_000_000_000);
        return Usage(type, type == MovementType.GpuUsage ? -amount : amount, At(random), $"{++keys}");
    }

    private static Movement Usage(MovementType type, long amount, DateTimeOffset at, string key) => new()
    {
        Type = type,
        Key = $"test/{key}",
        Entries = [new("customer:acme", new(amount)), new("revenue:gpu", new(-amount))],
        EffectiveAt = at,
        Description = "a test",
    };

    private async Task PostAsync(MovementType type, long amount, DateTimeOffset at)
    {
        var one = Usage(type, amount, at, $"{++keys}");
        Assert.IsType<PostResult.Posted>(await Ledger.PostAsync(one, Cancellation));
        posted.Add(one);
    }

    /// <summary>There are no runs behind these charges, and what runs were charged must in the end be what the ledger moved for them.</summary>
    private async Task GiveBackAsync()
    {
        var charged = posted.Where(one => one.Type.ToString().StartsWith("Gpu", StringComparison.Ordinal)).Aggregate(Money.Zero, (sum, one) => sum - Of(one));
        if (charged != Money.Zero) await PostAsync(charged > Money.Zero ? MovementType.GpuUsageCorrection : MovementType.GpuUsage, charged.Nanos, T0.AddDays(36));
    }

    private async Task<List<Dictionary<string, string>>> FocusAsync(Statement statement)
    {
        using var file = new MemoryStream();
        Assert.True(await Exports.FocusAsync(statement, file, Cancellation));
        return Csv(file);
    }

    /// <summary>Rows by column. No value here has a line's end in it.</summary>
    private static List<Dictionary<string, string>> Csv(MemoryStream file)
    {
        var lines = Encoding.UTF8.GetString(file.ToArray()).Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(Cells).ToList();
        return [.. lines.Skip(1).Select(cells => lines[0].Zip(cells).ToDictionary(pair => pair.First, pair => pair.Second))];
    }

    private static List<string> Cells(string line)
    {
        var (cells, cell, quoted) = (new List<string>(), new StringBuilder(), false);
        foreach (var letter in line)
        {
            if (letter == '"') quoted = !quoted;
            else if (letter == ',' && !quoted)
            {
                cells.Add(cell.ToString());
                cell.Clear();
            }
            else cell.Append(letter);
        }

        return [.. cells, cell.ToString()];
    }
}
