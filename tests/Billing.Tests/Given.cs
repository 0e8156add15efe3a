namespace Tensormesh.Billing.Tests;

/// <summary>Words for what the tests of pure money begin with.</summary>
internal static class Given
{
    public static readonly DateTimeOffset Now = new(2026, 3, 1, 12, 0, 0, TimeSpan.Zero);
    public static readonly GpuProduct H100 = new("NVIDIA-H100-80GB-HBM3");
    public static readonly AccountId Acme = new("acme");
    public static readonly DeploymentId Deployment = new(Guid.Parse("11111111-1111-1111-1111-111111111111"));
    public static readonly CreditPolicy Policy = new();

    public static Money Dollars(string text) => Money.Parse(text);

    public static Card Card(int expYear = 2030, int expMonth = 12, string id = "pm_card_visa")
        => new(id, "Visa", "4242", expMonth, expYear, true, Now.AddYears(-1));

    public static CardsOnFile Cards(params Card[] cards) => new(cards, null);

    public static AccruingInterval Interval(
        string perGpuHour = "2.50", int gpus = 1, DateTimeOffset? from = null, DateTimeOffset? settled = null,
        DeploymentId? deployment = null)
    {
        var (ratedFrom, rate) = (from ?? Now, Dollars(perGpuHour));
        var settledUntil = settled ?? ratedFrom;
        return new(
            new(Guid.NewGuid()), deployment ?? Deployment, H100, gpus, rate,
            ratedFrom, Rating.Due(settledUntil - ratedFrom, rate, gpus), settledUntil);
    }

    public static CreditHold Hold(string remaining, int gpus = 1, string perGpuHour = "2.50", DeploymentId? deployment = null)
        => new(deployment ?? Deployment, Acme, H100, gpus, Dollars(perGpuHour), Dollars(remaining), Now);

    public static Standing Standing(
        string posted, CardsOnFile? cards = null, IReadOnlyList<AccruingInterval>? intervals = null,
        IReadOnlyList<CreditHold>? holds = null, AccountPolicy? policy = null) => new()
        {
            Account = Acme,
            Policy = policy ?? new AccountPolicy("Acme", null, null, "UTC"),
            Posted = Dollars(posted),
            Cards = cards ?? Cards(Card()),
            Intervals = intervals ?? [],
            Holds = holds ?? [],
        };

    public static DeploymentStanding In(this Standing standing, string settledCost = "0.00")
        => new(standing, Deployment, standing.Holds.FirstOrDefault(hold => hold.Deployment == Deployment), Dollars(settledCost));

    public static LaunchRequest Request(int gpus = 4, string? perGpuHour = "2.50") => new()
    {
        Deployment = Deployment,
        Account = Acme,
        Namespace = "team-a",
        Gpus = gpus,
        Product = H100,
        PerGpuHour = perGpuHour is null ? null : Dollars(perGpuHour),
        GpuConstraint = "16 GPUs of product NVIDIA-H100-80GB-HBM3 on one node",
        GpusInCluster = "8 x NVIDIA-H100-80GB-HBM3, 4 x NVIDIA-L40S",
    };
}
