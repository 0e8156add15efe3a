using System.Runtime.CompilerServices;
using System.Security.Cryptography;
using System.Text;
using Newtonsoft.Json;
using Stripe;

namespace Tensormesh.Billing;

/// <summary>
/// Stripe. Every write carries an idempotency key that follows from what is meant, so that it may be sent again after any failure. No card
/// data passes here: cards are entered at Stripe and named by its ids.
/// </summary>
public sealed class StripePaymentProvider : IPaymentProvider, IDisposable
{
    public const string ProviderName = "stripe";
    /// <summary>What we write on a payment, to know it again: whose it is, and of which attempt.</summary>
    public const string AccountLabel = "tensormesh_account";
    public const string TopUpLabel = "tensormesh_top_up";
    private const string ModeLabel = "tensormesh_mode";

    private const string Card = "card";
    private const int PageSize = 100;
    /// <summary>Of one customer: a bound on what looking for an old attempt may cost.</summary>
    private const int MostPayments = 10_000;
    private static readonly TimeSpan ConnectTimeout = TimeSpan.FromSeconds(5);
    private static readonly TimeSpan ConnectionLifetime = TimeSpan.FromMinutes(5);
    /// <summary>Our clock and Stripe's may differ by this much.</summary>
    private static readonly TimeSpan ClockSkew = TimeSpan.FromMinutes(10);

    private readonly HttpClient http;
    private readonly V1Services api;

    public StripePaymentProvider(StripeOptions options)
    {
        http = new HttpClient(new SocketsHttpHandler { ConnectTimeout = ConnectTimeout, PooledConnectionLifetime = ConnectionLifetime })
        {
            Timeout = options.Timeout,
        };
        api = new StripeClient(new StripeClientOptions
        {
            ApiKey = options.SecretKey,
            ApiBase = options.ApiBase.GetLeftPart(UriPartial.Authority),
            HttpClient = new SystemNetHttpClient(http, options.Retries, enableTelemetry: false),
        }).V1;
    }

    public string Name => ProviderName;

    public Task<CustomerId> CreateCustomerAsync(AccountId account, int number, CancellationToken cancellation) => AskAsync(async () =>
    {
        var create = new CustomerCreateOptions { Description = $"Tensormesh account {account}", Metadata = Labels(account) };
        return new CustomerId((await api.Customers.CreateAsync(create, Once($"customer/{account}/{number}"), cancellation)).Id);
    }, cancellation);

    public Task<bool> HasCustomerAsync(CustomerId customer, CancellationToken cancellation) => AskAsync(async () =>
        await FoundAsync(() => api.Customers.GetAsync(customer.Value, cancellationToken: cancellation)) is { Deleted: not true }, cancellation);

    public Task<CardSetup> BeginCardSetupAsync(CustomerId customer, string key, CancellationToken cancellation) => AskOfAsync(customer, async () =>
    {
        var create = new SetupIntentCreateOptions { Customer = customer.Value, Usage = "off_session", AllowedPaymentMethodTypes = [Card] };
        var setup = await api.SetupIntents.CreateAsync(create, Once($"setup/{customer}/{key}"), cancellation);
        return new CardSetup(setup.Id, setup.ClientSecret);
    }, cancellation);

    public Task<ProviderCard?> FindCardAsync(string paymentMethodId, CancellationToken cancellation) => AskAsync(async () =>
        await FindAsync(paymentMethodId, cancellation) is { Card: { } } found ? Describe(found) : null, cancellation);

    public Task<CardAttachment> AttachCardAsync(CustomerId customer, string paymentMethodId, CancellationToken cancellation)
        => AskOfAsync<CardAttachment>(customer, async () =>
        {
            var found = await FindAsync(paymentMethodId, cancellation);
            if (found is not { Card: { } } || (found.CustomerId is { } owner && owner != customer.Value)) return new CardAttachment.Unknown();
            if (found.CustomerId is not null) return new CardAttachment.Attached(Describe(found));
            try
            {
                var attached = await api.PaymentMethods.AttachAsync(
                    paymentMethodId, new PaymentMethodAttachOptions { Customer = customer.Value },
                    Once($"attach/{customer}/{paymentMethodId}"), cancellation);
                return new CardAttachment.Attached(Describe(attached));
            }
            catch (StripeException refused) when (refused.StripeError?.Type == ErrorType.Card)
            {
                return new CardAttachment.Declined(DeclineCode(refused.StripeError), Message(refused.StripeError));
            }
        }, cancellation);

    public Task<IReadOnlyList<ProviderCard>> ListCardsAsync(CustomerId customer, CancellationToken cancellation)
        => AskAsync<IReadOnlyList<ProviderCard>>(async () =>
        {
            var list = await api.Customers.PaymentMethods.ListAsync(
                customer.Value, new CustomerPaymentMethodListOptions { Type = Card, Limit = PageSize }, cancellationToken: cancellation);
            return [.. list.Data.Select(Describe)];
        }, cancellation);

    /// <summary>Without a key of its own: making A, then B, then A the default again must not be taken for a repetition.</summary>
    public Task MakeDefaultAsync(CustomerId customer, string paymentMethodId, CancellationToken cancellation) => AskOfAsync(
        customer, () => api.Customers.UpdateAsync(customer.Value, new CustomerUpdateOptions
        {
            InvoiceSettings = new CustomerInvoiceSettingsOptions { DefaultPaymentMethod = paymentMethodId },
        }, cancellationToken: cancellation), cancellation);

    public Task DetachCardAsync(string paymentMethodId, CancellationToken cancellation) => AskAsync(async () =>
    {
        // Stripe refuses to detach what is attached to nobody.
        if (await FindAsync(paymentMethodId, cancellation) is not { CustomerId: { } customer }) return false;
        await api.PaymentMethods.DetachAsync(paymentMethodId, requestOptions: Once($"detach/{customer}/{paymentMethodId}"), cancellationToken: cancellation);
        return true;
    }, cancellation);

    public Task<bool> IsAttachedAsync(string paymentMethodId, CancellationToken cancellation) => AskAsync(async () =>
        await FindAsync(paymentMethodId, cancellation) is { CustomerId: { } }, cancellation);

    public async Task<PaymentOutcome> ChargeAsync(Charge charge, CancellationToken cancellation)
    {
        var create = new PaymentIntentCreateOptions
        {
            Amount = StripeAmounts.ToCents(charge.Amount),
            Currency = StripeAmounts.Currency,
            Customer = charge.Customer.Value,
            PaymentMethod = charge.PaymentMethodId,
            AllowedPaymentMethodTypes = [Card],
            Confirm = true,
            OffSession = charge.Mode == ChargeMode.OffSession ? true : null,
            Description = "Tensormesh balance",
            Metadata = Labels(charge.Account, charge),
        };
        try
        {
            return Outcome(await AskOfAsync(charge.Customer, () => api.PaymentIntents.CreateAsync(create, Once($"topup/{charge.Id}"), cancellation), cancellation));
        }
        catch (StripeException refused) when (refused.StripeError is { Type: ErrorType.Card } error)
        {
            return Refused(error, error.PaymentIntent);
        }
        catch (PaymentProviderException missing) when (missing.InnerException is StripeException { StripeError: { Code: ErrorCode.Missing, Param: "payment_method" } error })
        {
            return new PaymentOutcome.Declined(error.Code, Message(error));
        }
        catch (PaymentProviderException unknown) when (unknown.IsTransient)
        {
            return new PaymentOutcome.InDoubt(unknown.Message);
        }
    }

    /// <summary>
    /// By our label among the customer's payments. Stripe forgets an idempotency key after a day, and repeats an error 500 under it until
    /// then: what it has in its books is the better answer.
    /// </summary>
    public Task<ProviderPayment?> FindChargeAsync(Charge charge, DateTimeOffset begunAt, CancellationToken cancellation)
        => AskAsync<ProviderPayment?>(async () =>
        {
            var list = new PaymentIntentListOptions
            {
                Customer = charge.Customer.Value,
                Created = new DateRangeOptions { GreaterThanOrEqual = (begunAt - ClockSkew).UtcDateTime },
                Limit = PageSize,
                Expand = ["data.latest_charge"],
            };
            var seen = 0;
            await foreach (var payment in api.PaymentIntents.ListAutoPagingAsync(list, cancellationToken: cancellation))
            {
                if (payment.Metadata.GetValueOrDefault(TopUpLabel) == charge.Id.Value) return Describe(payment);
                if (++seen >= MostPayments) throw new PaymentProviderException($"customer {charge.Customer} has over {MostPayments} payments since {begunAt:O}", isTransient: false);
            }

            return null;
        }, cancellation);

    public Task<ProviderPayment?> FindPaymentAsync(string paymentIntentId, CancellationToken cancellation) => AskAsync(async () =>
    {
        var found = await FoundAsync(() => api.PaymentIntents.GetAsync(
            paymentIntentId, new PaymentIntentGetOptions { Expand = ["latest_charge"] }, cancellationToken: cancellation));
        return found is null ? null : Describe(found);
    }, cancellation);

    public Task<RefundOutcome> RefundAsync(string paymentIntentId, Money amount, string key, CancellationToken cancellation)
        => AskAsync<RefundOutcome>(async () =>
        {
            var create = new RefundCreateOptions { PaymentIntent = paymentIntentId, Amount = StripeAmounts.ToCents(amount) };
            try
            {
                var refund = await api.Refunds.CreateAsync(create, Once($"refund/{paymentIntentId}/{key}"), cancellation);
                return refund.Status is "failed" or "canceled"
                    ? new RefundOutcome.Refused(refund.Status, "The bank did not take the refund.")
                    : new RefundOutcome.Refunded(refund.Id, Pending: refund.Status != "succeeded");
            }
            catch (StripeException refused) when (refused.StripeError is { Type: ErrorType.Request or ErrorType.Card, Code: { } code } && code != ErrorCode.Busy)
            {
                return new RefundOutcome.Refused(code, Message(refused.StripeError));
            }
        }, cancellation);

    public Task<ProviderRefunds?> FindRefundsAsync(string chargeId, CancellationToken cancellation) => AskAsync(async () =>
    {
        if (await FoundAsync(() => api.Charges.GetAsync(chargeId, cancellationToken: cancellation)) is not { } charge) return null;
        var refunds = new List<ProviderRefund>();
        var list = new RefundListOptions { Charge = chargeId, Limit = PageSize };
        await foreach (var refund in api.Refunds.ListAutoPagingAsync(list, cancellationToken: cancellation))
        {
            if (refund.Status is not ("failed" or "canceled")) refunds.Add(new(refund.Id, StripeAmounts.FromCents(refund.Amount)));
        }

        // Oldest first, as they happened.
        refunds.Reverse();
        return new ProviderRefunds(charge.PaymentIntentId, charge.Currency, refunds);
    }, cancellation);

    public Task<ProviderDispute?> FindDisputeAsync(string disputeId, CancellationToken cancellation) => AskAsync(async () =>
        await FoundAsync(() => api.Disputes.GetAsync(disputeId, cancellationToken: cancellation)) is { } dispute
            ? new ProviderDispute(
                dispute.Id, dispute.PaymentIntentId, StripeAmounts.FromCents(dispute.Amount), dispute.Currency,
                IsTaken: dispute.BalanceTransactions?.Sum(entry => entry.Amount) < 0)
            : null, cancellation);

    public async IAsyncEnumerable<ProviderReceipt> ListPaidAsync(DateTimeOffset since, [EnumeratorCancellation] CancellationToken cancellation)
    {
        string? after = null;
        while (true)
        {
            var list = new BalanceTransactionListOptions
            {
                Created = new DateRangeOptions { GreaterThanOrEqual = since.UtcDateTime },
                Limit = PageSize,
                StartingAfter = after,
                Expand = ["data.source"],
            };
            var page = await AskAsync(() => api.BalanceTransactions.ListAsync(list, cancellationToken: cancellation), cancellation);
            foreach (var charge in page.Data.Select(entry => entry.Source).OfType<Stripe.Charge>())
            {
                if (charge.PaymentIntentId is not { } payment) continue;
                yield return new(payment, charge.Currency == StripeAmounts.Currency ? StripeAmounts.FromCents(charge.Amount) : Money.Zero);
            }

            if (!page.HasMore || page.Data.Count == 0) yield break;
            after = page.Data[^1].Id;
        }
    }

    public void Dispose() => http.Dispose();

    private async Task<PaymentMethod?> FindAsync(string paymentMethodId, CancellationToken cancellation)
        => await FoundAsync(() => api.PaymentMethods.GetAsync(paymentMethodId, cancellationToken: cancellation));

    private static async Task<T?> FoundAsync<T>(Func<Task<T>> get) where T : class
    {
        try
        {
            return await get();
        }
        catch (StripeException missing) when (missing.StripeError?.Code == ErrorCode.Missing)
        {
            return null;
        }
    }

    /// <summary>Tells what is Stripe's answer from what is none. A refusal of a card passes through: what it means depends on what was asked.</summary>
    private static async Task<T> AskAsync<T>(Func<Task<T>> ask, CancellationToken cancellation)
    {
        try
        {
            return await ask();
        }
        catch (StripeException error) when (error.StripeError?.Type != ErrorType.Card)
        {
            // No status: the answer could not be read. 409: the same key is being worked on. 429: too many at once.
            var transient = error.StripeError is null || (int)error.HttpStatusCode is 0 or 409 or 429 or >= 500 || error.StripeError.Code == ErrorCode.Busy;
            throw new PaymentProviderException($"Stripe answered {(int)error.HttpStatusCode} {error.StripeError?.Type} {error.StripeError?.Code}: {error.Message}", transient, error);
        }
        catch (Exception lost) when (lost is HttpRequestException or IOException or JsonException
            || (lost is OperationCanceledException && !cancellation.IsCancellationRequested))
        {
            throw new PaymentProviderException($"Stripe did not answer: {lost.Message}", isTransient: true, lost);
        }
    }

    /// <summary>The same, of a customer that may have been deleted over there.</summary>
    private static async Task<T> AskOfAsync<T>(CustomerId customer, Func<Task<T>> ask, CancellationToken cancellation)
    {
        try
        {
            return await AskAsync(ask, cancellation);
        }
        catch (PaymentProviderException refused) when (refused.InnerException is StripeException { StripeError: { Code: ErrorCode.Missing } error }
            && error.Message?.Contains($"'{customer}'", StringComparison.Ordinal) == true)
        {
            throw new CustomerGoneException(customer, refused);
        }
    }

    /// <summary>The same meaning is done once. Hashed, because a key may have 255 characters.</summary>
    private static RequestOptions Once(string meaning) => new()
    {
        IdempotencyKey = "tensormesh-" + Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(meaning))),
    };

    private static Dictionary<string, string> Labels(AccountId account, Charge? charge = null)
    {
        var labels = new Dictionary<string, string> { [AccountLabel] = account.Value };
        if (charge is null) return labels;
        labels[TopUpLabel] = charge.Id.Value;
        labels[ModeLabel] = charge.Mode.ToString();
        return labels;
    }

    private static ProviderCard Describe(PaymentMethod method)
        => new(method.Id, Brand(method.Card.Brand), method.Card.Last4, (int)method.Card.ExpMonth, (int)method.Card.ExpYear);

    private static string Brand(string brand) => brand switch
    {
        "visa" => "Visa",
        "mastercard" => "Mastercard",
        "amex" => "American Express",
        "diners" => "Diners Club",
        "discover" => "Discover",
        "jcb" => "JCB",
        "unionpay" => "UnionPay",
        _ => "Card",
    };

    private static ProviderPayment Describe(PaymentIntent payment) => new(
        payment.Id,
        payment.CustomerId is { } customer ? new CustomerId(customer) : null,
        payment.PaymentMethodId ?? payment.LatestCharge?.PaymentMethod,
        Outcome(payment),
        StripeAmounts.FromCents(payment.AmountReceived),
        payment.Currency,
        StripeAmounts.FromCents(payment.LatestCharge is { } charge ? (charge.Disputed ? charge.Amount : charge.AmountRefunded) : 0),
        payment.Metadata.TryGetValue(AccountLabel, out var account) ? new AccountId(account) : null,
        payment.Metadata.TryGetValue(TopUpLabel, out var topUp) ? new TopUpId(topUp) : null,
        payment.Metadata.GetValueOrDefault(ModeLabel) == nameof(ChargeMode.OffSession) ? ChargeMode.OffSession : ChargeMode.OnSession);

    private static PaymentOutcome Outcome(PaymentIntent payment) => payment.Status switch
    {
        "succeeded" => new PaymentOutcome.Succeeded(payment.Id, payment.ClientSecret),
        "requires_action" => new PaymentOutcome.AuthenticationRequired(payment.Id, payment.ClientSecret),
        "requires_payment_method" when payment.LastPaymentError is { } error => Refused(error, payment),
        "canceled" => new PaymentOutcome.Declined("canceled", "The payment was canceled.", payment.Id),
        _ => new PaymentOutcome.InDoubt($"payment {payment.Id} is {payment.Status}"),
    };

    private static PaymentOutcome Refused(StripeError error, PaymentIntent? payment)
        => error.Code == ErrorCode.Authentication && payment is not null
        ? new PaymentOutcome.AuthenticationRequired(payment.Id, payment.ClientSecret)
        : new PaymentOutcome.Declined(DeclineCode(error), Message(error), payment?.Id);

    /// <summary>Stripe's decline_code says more than its code, where the bank said more.</summary>
    private static string DeclineCode(StripeError error) => error.DeclineCode is { Length: > 0 } and not "generic_decline" ? error.DeclineCode : error.Code ?? "card_declined";

    private static string Message(StripeError error) => error.Message ?? "The card was declined.";

    private static class ErrorType
    {
        public const string Card = "card_error";
        public const string Request = "invalid_request_error";
    }

    private static class ErrorCode
    {
        public const string Missing = "resource_missing";
        public const string Authentication = "authentication_required";
        public const string Busy = "lock_timeout";
    }
}

/// <summary>Stripe counts whole cents, we count nano-dollars: exact both ways, or refused.</summary>
public static class StripeAmounts
{
    public const string Currency = "usd";
    private const long NanosPerCent = Money.NanosPerUnit / 100;

    /// <exception cref="ArgumentOutOfRangeException">Not a positive number of whole cents.</exception>
    public static long ToCents(Money amount) => amount.Nanos > 0 && amount.Nanos % NanosPerCent == 0
        ? amount.Nanos / NanosPerCent
        : throw new ArgumentOutOfRangeException(nameof(amount), $"a card is charged in whole cents above zero, not {amount.ToDecimalString()}");

    public static Money FromCents(long cents) => new(checked(cents * NanosPerCent));
}
