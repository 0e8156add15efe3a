using Tensormesh.Billing;

namespace Tensormesh.Simulation.Tests;

/// <summary>
/// A payment company that remembers what it charged, with a card that expires within a story and one that it declines. An answer can get lost after the
/// money has moved, and the process that waits for it can die. What it is not asked for in a story is the sandbox's.
/// </summary>
internal sealed class PaperBank(Mortality mortality, DateTimeOffset monthOfStory) : IPaymentProvider
{
    public const string LongLived = "pm_long", ThisMonth = "pm_month", Declining = "pm_declines";

    private readonly SandboxPaymentProvider sandbox = new();
    private readonly Dictionary<TopUpId, ProviderPayment> payments = [];

    public bool NextAnswerIsLost { get; set; }
    /// <summary>What left cards for an account.</summary>
    public Money Taken(AccountId account) => payments.Values.Where(payment => payment.Account == account).Aggregate(Money.Zero, (sum, payment) => sum + payment.Received);

    public string Name => "paper";

    public Task<ProviderCard?> FindCardAsync(string paymentMethodId, CancellationToken cancellation) => Task.FromResult<ProviderCard?>(Card(paymentMethodId));

    public Task<CardAttachment> AttachCardAsync(CustomerId customer, string paymentMethodId, CancellationToken cancellation)
        => Task.FromResult<CardAttachment>(new CardAttachment.Attached(Card(paymentMethodId)));

    public Task<PaymentOutcome> ChargeAsync(Charge charge, CancellationToken cancellation)
    {
        mortality.Step();
        if (!payments.TryGetValue(charge.Id, out var payment))
        {
            var id = $"pi_{charge.Id.Value}";
            PaymentOutcome outcome = charge.PaymentMethodId == Declining
                ? new PaymentOutcome.Declined("card_declined", "The card was declined.", id)
                : new PaymentOutcome.Succeeded(id, $"{id}_secret");
            payment = new(
                id, charge.Customer, charge.PaymentMethodId, outcome, outcome is PaymentOutcome.Succeeded ? charge.Amount : Money.Zero, "usd", Money.Zero,
                charge.Account, charge.Id, charge.Mode);
            payments[charge.Id] = payment;
        }

        mortality.Step();
        if (!NextAnswerIsLost) return Task.FromResult(payment.Outcome);
        NextAnswerIsLost = false;
        throw new PaymentProviderException("no answer came", isTransient: true);
    }

    public Task<ProviderPayment?> FindChargeAsync(Charge charge, DateTimeOffset begunAt, CancellationToken cancellation)
        => Task.FromResult(payments.GetValueOrDefault(charge.Id));

    public Task<ProviderPayment?> FindPaymentAsync(string paymentIntentId, CancellationToken cancellation)
        => Task.FromResult(payments.Values.FirstOrDefault(payment => payment.PaymentIntentId == paymentIntentId));

    public Task<CustomerId> CreateCustomerAsync(AccountId account, int number, CancellationToken cancellation) => sandbox.CreateCustomerAsync(account, number, cancellation);
    public Task<bool> HasCustomerAsync(CustomerId customer, CancellationToken cancellation) => sandbox.HasCustomerAsync(customer, cancellation);
    public Task<CardSetup> BeginCardSetupAsync(CustomerId customer, string key, CancellationToken cancellation) => sandbox.BeginCardSetupAsync(customer, key, cancellation);
    public Task<IReadOnlyList<ProviderCard>> ListCardsAsync(CustomerId customer, CancellationToken cancellation) => sandbox.ListCardsAsync(customer, cancellation);
    public Task MakeDefaultAsync(CustomerId customer, string paymentMethodId, CancellationToken cancellation) => sandbox.MakeDefaultAsync(customer, paymentMethodId, cancellation);
    public Task DetachCardAsync(string paymentMethodId, CancellationToken cancellation) => sandbox.DetachCardAsync(paymentMethodId, cancellation);
    public Task<bool> IsAttachedAsync(string paymentMethodId, CancellationToken cancellation) => Task.FromResult(true);
    public Task<RefundOutcome> RefundAsync(string paymentIntentId, Money amount, string key, CancellationToken cancellation) => sandbox.RefundAsync(paymentIntentId, amount, key, cancellation);
    public Task<ProviderRefunds?> FindRefundsAsync(string chargeId, CancellationToken cancellation) => sandbox.FindRefundsAsync(chargeId, cancellation);
    public Task<ProviderDispute?> FindDisputeAsync(string disputeId, CancellationToken cancellation) => sandbox.FindDisputeAsync(disputeId, cancellation);
    public IAsyncEnumerable<ProviderReceipt> ListPaidAsync(DateTimeOffset since, CancellationToken cancellation) => sandbox.ListPaidAsync(since, cancellation);

    private ProviderCard Card(string id) => id == ThisMonth
        ? new(id, "Visa", "0131", monthOfStory.Month, monthOfStory.Year)
        : new(id, "Visa", id == Declining ? "0002" : "4242", 12, 2040);
}
