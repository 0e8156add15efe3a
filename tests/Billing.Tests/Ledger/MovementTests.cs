using System.Text.Json;
using static Tensormesh.Billing.Tests.Given;

namespace Tensormesh.Billing.Tests;

public sealed class MovementTests
{
    private static readonly Run Run = new()
    {
        Pod = new(Guid.Parse("22222222-2222-2222-2222-222222222222")),
        PodName = "train-abc",
        Deployment = Deployment,
        DeploymentName = "train",
        Namespace = "team-a",
        Account = Acme,
        Node = "gpu-a",
        Product = H100,
        Gpus = 4,
        StartedAt = Now,
        PriceVersion = new(7),
        PerGpuHour = Dollars("2.50"),
        RatedFrom = Now,
        Rated = Money.Zero,
        Total = Money.Zero,
        SettledUntil = Now,
    };

    private static readonly GpuFault Fault = new()
    {
        Gpus = ["GPU-a"],
        Gpu = "GPU-a",
        Node = "gpu-a",
        Reason = "Lost",
        Message = "it is gone",
        SeenAt = Now.AddSeconds(30),
    };

    private static readonly PostedTransaction Dispute = new(
        "txn_2", "Dispute", Acme, [new("cash:sandbox", Dollars("5.00")), new("receivable:disputes", Dollars("-5.00"))]);

    [Fact]
    public void Every_movement_balances_and_its_key_is_its_meaning()
    {
        var end = Now.AddTicks(600_000_070);
        (Movement Movement, string Key, string From, string To)[] all =
        [
            (Movements.TopUp(Acme, Dollars("5.00"), "sandbox", "pi_1", "pm_card_visa"), "topup/sandbox/pi_1", "cash:sandbox",
                "customer:acme"),
            (Movements.CreditGrant(Acme, Dollars("5.00"), "k1", "admin@x", "welcome"), "grant/acme/k1", "expense:credit_grants",
                "customer:acme"),
            (Movements.GpuUsage(Run, end, Dollars("0.10")),
                "gpu/11111111-1111-1111-1111-111111111111/22222222-2222-2222-2222-222222222222/20260301T120100.000007Z", "customer:acme",
                "revenue:gpu"),
            (Movements.GpuUsageCorrection(Run, end, Dollars("0.10")),
                "gpu-correction/11111111-1111-1111-1111-111111111111/22222222-2222-2222-2222-222222222222", "revenue:gpu", "customer:acme"),
            (Movements.GpuFaultCredit(Run with { SettledUntil = end.AddSeconds(1) }, Fault, end, Dollars("0.10")),
                "gpu-fault/11111111-1111-1111-1111-111111111111/22222222-2222-2222-2222-222222222222/20260301T120100.000007Z", "revenue:gpu",
                "customer:acme"),
            (Movements.ServerlessUsage(Acme, new(new(2026, 3, 1), end, [new("m", new(3), new(10, 4, 2), Dollars("0.10"))], Dollars("0.10")), Dollars("0.05"), Dollars("0.15"), null),
                "serverless/acme/50000000-150000000", "customer:acme", "revenue:serverless"),
            (Movements.Uncollected(Acme, "acme", Now, end, [(Run, Dollars("0.10"))]),
                "uncollected/acme/20260301T120000.000000Z/20260301T120100.000007Z", "expense:uncollected", "revenue:gpu"),
            (Movements.Refund(Acme, Dollars("5.00"), "sandbox", "re_1", "txn_1"), "refund/sandbox/re_1", "customer:acme", "cash:sandbox"),
            (Movements.Dispute(Acme, Dollars("5.00"), Dollars("5.00"), "sandbox", "dp_1", "txn_1"), "dispute/sandbox/dp_1", "customer:acme",
                "cash:sandbox"),
            (Movements.DisputeReversal(Dispute), "dispute-reversal/txn_2", "cash:sandbox", "receivable:disputes"),
            (Movements.WriteOff("txn_2", Dollars("5.00"), "k1", "ada", "gone"), "write-off/txn_2/k1", "expense:write_offs", "receivable:disputes"),
            (Movements.Adjustment(Acme, Dollars("5.00"), "k1", "ada", "goodwill"), "adjustment/acme/k1", "expense:adjustments", "customer:acme"),
            (Movements.CreditExpiry(Acme, "txn_3", Dollars("5.00"), end), "grant-expiry/txn_3", "customer:acme", "expense:credit_grants"),
            (Movements.Reversal(Dispute, "ada", "typo"), "reversal/txn_2", "cash:sandbox", "receivable:disputes"),
        ];
        Assert.Equal(Enum.GetValues<MovementType>(), all.Select(one => one.Movement.Type).Order());
        foreach (var (movement, key, from, to) in all)
        {
            Assert.Equal(key, movement.Key);
            Assert.Equal([from, to], movement.Entries.Select(entry => entry.LedgerAccount));
            Assert.Equal(Money.Zero, movement.Entries[0].Amount + movement.Entries[1].Amount);
            Assert.True(movement.Entries[1].Amount > Money.Zero);
        }
    }

    [Fact]
    public void A_charge_says_what_ran_where_and_at_which_price()
    {
        using var details = JsonDocument.Parse(Movements.GpuUsage(Run, Now.AddMinutes(1), Dollars("0.10")).Details);
        string Text(string name) => details.RootElement.GetProperty(name).ToString();
        Assert.Equal(
            ["train-abc", "gpu-a", "NVIDIA-H100-80GB-HBM3", "4", "2026-03-01T12:00:00.000000Z", "2026-03-01T12:01:00.000000Z", "7",
                "2500000000"],
            new[] { "podName", "node", "product", "gpus", "windowStart", "windowEnd", "priceVersion", "perGpuHourNanos" }.Select(Text));
    }

    [Fact]
    public void A_charge_names_the_gpus_in_their_order_and_does_not_speak_of_them_while_they_are_unknown()
    {
        var known = Run with { GpuUuids = ["GPU-b", "GPU-a"] };
        JsonElement Details(Movement movement) => JsonDocument.Parse(movement.Details).RootElement;
        Movement[] charges =
        [
            Movements.GpuUsage(known, Now.AddMinutes(1), Dollars("0.10")), Movements.GpuUsageCorrection(known, Now, Dollars("0.10")),
            Movements.GpuFaultCredit(known, Fault, Now, Dollars("0.10")),
        ];
        Assert.All(charges, charge => Assert.Equal("""["GPU-b","GPU-a"]""", Details(charge).GetProperty("gpuUuids").GetRawText()));
        var lost = Details(Movements.Uncollected(Acme, "acme", Now, Now, [(known, Dollars("0.10")), (Run, Dollars("0.10"))])).GetProperty("pods");
        Assert.Equal("""["GPU-b","GPU-a"]""", lost[0].GetProperty("gpuUuids").GetRawText());
        Assert.False(lost[1].TryGetProperty("gpuUuids", out _));
        Assert.False(Details(Movements.GpuUsage(Run, Now.AddMinutes(1), Dollars("0.10"))).TryGetProperty("gpuUuids", out _));
    }

    [Fact]
    public void A_credit_tells_of_the_fault_in_utc_whatever_the_offset_of_the_evidence()
    {
        var fault = Fault with { SeenAt = Fault.SeenAt.ToOffset(TimeSpan.FromHours(2)), RecoveredAt = Fault.SeenAt.AddMinutes(1) };
        using var details = JsonDocument.Parse(Movements.GpuFaultCredit(Run, fault, Now, Dollars("0.10")).Details);
        string Text(string name) => details.RootElement.GetProperty(name).ToString();
        Assert.Equal(
            ["GPU-a", "Lost", "it is gone", "", "2026-03-01T12:00:30.000000Z", "2026-03-01T12:01:30.000000Z"],
            new[] { "gpu", "reason", "message", "lastHealthyAt", "seenAt", "recoveredAt" }.Select(Text));
        Assert.Equal(JsonValueKind.Null, details.RootElement.GetProperty("lastHealthyAt").ValueKind);
    }

    [Fact]
    public void A_dispute_takes_from_the_balance_and_from_what_is_owed_and_never_an_entry_of_nothing()
    {
        string[] Entries(string fromBalance) => [.. Movements.Dispute(Acme, Dollars("5.00"), Dollars(fromBalance), "sandbox", "dp_1", "txn_1").Entries
            .Select(entry => $"{entry.LedgerAccount} {entry.Amount.ToDecimalString()}")];
        Assert.Equal(["customer:acme -2.00", "receivable:disputes -3.00", "cash:sandbox 5.00"], Entries("2.00"));
        Assert.Equal(["receivable:disputes -5.00", "cash:sandbox 5.00"], Entries("0.00"));
        Assert.Throws<ArgumentOutOfRangeException>(() => Entries("5.01"));
    }

    [Fact]
    public void An_adjustment_says_who_and_why_and_goes_either_way()
    {
        Assert.Equal("customer:acme", Movements.Adjustment(Acme, Dollars("-1.00"), "k", "ada", "typo").Entries[0].LedgerAccount);
        Assert.Equal("""{"by":"ada","reason":"typo"}""", Movements.Adjustment(Acme, Dollars("-1.00"), "k", "ada", "typo").Details);
        Assert.Throws<ArgumentException>(() => Movements.Adjustment(Acme, Dollars("1.00"), "k", " ", "typo"));
        Assert.Throws<ArgumentException>(() => Movements.Adjustment(Acme, Dollars("1.00"), "k", "ada", ""));
        Assert.Throws<ArgumentOutOfRangeException>(() => Movements.Adjustment(Acme, Money.Zero, "k", "ada", "typo"));
    }

    [Theory]
    [InlineData("0.00")]
    [InlineData("-1.00")]
    public void Nothing_moves_backwards(string amount)
        => Assert.Throws<ArgumentOutOfRangeException>(() => Movements.TopUp(Acme, Dollars(amount), "sandbox", "pi_1", "pm"));
}
